"""Reads the configured input, whatever its layout, into typed events, items and tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.config_sections import InputConfig
from fm_spark.events import generic, movielens
from fm_spark.events.attributes import Attribute, parse_attributes, typed_attributes, with_attributes
from fm_spark.events.layouts import GenericLayout, MovieLensLayout, find_layout
from fm_spark.events.listed import listed_once
from fm_spark.events.parsing import instant
from fm_spark.events.quality import MAX_EXAMPLES, Finding
from fm_spark.events.rows import Checked, checked_events
from fm_spark.events.sources import MALFORMED, PROBLEM, Source
from fm_spark.events.users import read_users
from fm_spark.parallel import side_by_side

_VALUES = "_values"


@dataclass(frozen=True)
class RawInput:
    """Everything that was read and can be used; nothing is cached.

    Attributes:
        events: user_id, item_id (bigint or string), time (timestamp), value, weight (double), duplicates included.
        items: item_id, title (may be null), genres (array<string>), year, attributes; one row an item; None without an
            items file.
        attributes: what the configuration declares of the items file.
        tags: user_id, item_id, tag, time (null when unreadable), one row a tag that a user gave; None without them.
        rated: whether the input has values; without them every event is a positive one.
        rows_read: rows of events, bad ones included.
        users: user_id, attributes; one row a user of the users' file; None without ``input.user_columns``.
    """

    source: str
    events: DataFrame
    items: DataFrame | None
    attributes: tuple[Attribute, ...]
    tags: DataFrame | None
    rated: bool
    rows_read: int
    findings: list[Finding]
    users: DataFrame | None = None


def read_input(spark: SparkSession, config: InputConfig) -> RawInput:
    """Looks at ``input.path``, reads it in its layout and checks every row.

    Raises:
        InputError: missing or unknown input, missing column, no rows, or bad rows under ``input.bad_rows = fail``.
    """
    layout = find_layout(spark, config)
    if isinstance(layout, MovieLensLayout):
        raw = _read_movielens(spark, layout, config)
    else:
        raw = _read_generic(spark, layout, config)
    whole_ids = isinstance(raw.events.schema["user_id"].dataType, T.LongType)
    users = read_users(spark, layout, config, whole_ids)
    return replace(raw, users=users.rows, findings=[*raw.findings, *users.findings])


def _read_generic(spark: SparkSession, layout: GenericLayout, config: InputConfig) -> RawInput:
    attributes = parse_attributes(config.item_columns, "input.item_columns", config.items_id_column)
    items_file = generic.items_source(spark, config, attributes)
    source = generic.events_source(spark, layout, config)
    shape = generic.events_shape(source, config)
    events = checked_events(source, shape, config.bad_rows)
    items, found = _checked_items(
        items_file, lambda raw: generic.items_shape(raw, shape.integer_ids["item"]), config, attributes
    )
    findings = [*events.findings, *found]
    rated = bool(config.value_column)
    return RawInput(source.name, events.rows, items, attributes, None, rated, events.read, findings)


def _read_movielens(spark: SparkSession, layout: MovieLensLayout, config: InputConfig) -> RawInput:
    source = movielens.ratings_source(spark, layout)
    attributes = parse_attributes(config.item_columns, "input.item_columns", movielens.ITEM_ID)
    files = movielens.items_source(spark, layout, attributes), movielens.tags_source(spark, layout)
    checked: dict[str, Any] = side_by_side(
        {
            "events": lambda: checked_events(
                source, movielens.ratings_shape(layout, config.value_range), config.bad_rows
            ),
            "items": lambda: _checked_items(
                files[0], lambda raw: movielens.items_shape(spark, layout, raw), config, attributes
            ),
            "tags": lambda: _checked_tags(files[1]),
        }
    )
    events: Checked = checked["events"]
    (items, found), (tags, unread) = checked["items"], checked["tags"]
    findings = [*events.findings, *found, *unread]
    return RawInput(source.name, events.rows, items, attributes, tags, True, events.read, findings)


def _checked_items(
    source: Source | None, plain: Callable[[DataFrame], DataFrame], config: InputConfig, attributes: Sequence[Attribute]
) -> tuple[DataFrame | None, list[Finding]]:
    """One row an item; of an item listed twice the row with the least title stays."""
    if source is None:
        return None, []
    name = source.name

    def shape(raw: DataFrame) -> DataFrame:
        typed = typed_attributes(raw, attributes, name, "input.item_columns")
        return plain(raw).withColumns({_VALUES: typed.values, PROBLEM: F.coalesce(PROBLEM, typed.problem)})

    found = listed_once(source, shape, "item", ("title", "genres", "year", _VALUES), config.bad_rows)
    return with_attributes(found.rows, attributes, _VALUES), found.findings


def _checked_tags(source: Source | None) -> tuple[DataFrame | None, list[Finding]]:
    """The tags that can be read; no event depends on them, so a bad one is never a reason to stop."""
    if source is None:
        return None, []

    def shape(raw: DataFrame) -> DataFrame:
        item = F.expr("try_cast(`item` as bigint)")
        tag = F.lower(F.trim("tag"))
        problem = F.when(F.col(MALFORMED), "wrong number of fields").when(item.isNull(), "the film is no whole number")
        problem = problem.when(F.coalesce(tag, F.lit("")) == "", "the tag is empty")
        user, time = F.expr("try_cast(`user` as bigint)"), instant("time", T.StringType(), "seconds")
        return raw.withColumns({"user_id": user, "item_id": item, "tag": tag, "time": time, PROBLEM: problem})

    shaped = shape(source.read())
    bad = shaped.agg(F.count(PROBLEM).alias("bad")).collect()[0]["bad"]
    finding = Finding("unreadable_tags", bad, "dropped", "rows of the tags file that cannot be read or hold no tag",
                      tuple(source.examples(shape, MAX_EXAMPLES)) if bad else ())  # fmt: skip
    return shaped.where(F.col(PROBLEM).isNull()).select("user_id", "item_id", "tag", "time"), [finding]
