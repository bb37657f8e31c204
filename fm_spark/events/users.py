"""The users' file: what ``input.user_columns`` declares of every user that it lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.config_sections import InputConfig
from fm_spark.errors import InputError
from fm_spark.events.attributes import Attribute, raw_columns, typed_attributes, with_attributes
from fm_spark.events.files import Entry
from fm_spark.events.generic import rows_source
from fm_spark.events.layouts import DAT_RELEASE, GenericLayout, MovieLensLayout, find_entries, generic_layout
from fm_spark.events.listed import listed_once
from fm_spark.events.parsing import is_empty, whole_number
from fm_spark.events.quality import Finding
from fm_spark.events.sources import MALFORMED, PROBLEM, Source, separated_source
from fm_spark.events.user_columns import declared_columns

KEY = "input.user_columns"
_VALUES = "_values"
# columns of users.dat (1M) and u.user (100K), in the order of each
_DAT_COLUMNS = ("gender", "age", "occupation", "zip")
_U_COLUMNS = ("age", "gender", "occupation", "zip")


class ReadUsers(NamedTuple):
    """The users, and what was found wrong.

    Attributes:
        rows: user_id, attributes; one row a user of the file, with events or not. None without columns.
    """

    rows: DataFrame | None
    findings: list[Finding]


def read_users(
    spark: SparkSession, layout: MovieLensLayout | GenericLayout, config: InputConfig, integer: bool
) -> ReadUsers:
    """Reads the file of ``input.users_path``, or the one of the MovieLens release, and checks every row.

    Args:
        integer: whether the events' user ids are bigint (else string).

    Raises:
        ConfigError: ``input.user_columns`` is not of its form.
        InputError: there is no such file or column; a user stands there twice, or rows cannot be read, under
            ``input.bad_rows = fail``.
    """
    attributes = declared_columns(config)
    if not attributes:
        return ReadUsers(None, [])
    source = _users_source(spark, layout, config, attributes)

    def shape(raw: DataFrame) -> DataFrame:
        user = whole_number("user") if integer else F.when(~is_empty("user"), F.col("user").cast("string"))
        wanted = "the id is no whole number (the events' ids are)" if integer else "the id is empty"
        typed = typed_attributes(raw, attributes, source.name, KEY)
        problem = F.when(F.col(MALFORMED), "wrong number of fields").when(user.isNull(), wanted)
        return raw.withColumns({"user_id": user, _VALUES: typed.values, PROBLEM: F.coalesce(problem, typed.problem)})

    found = listed_once(source, shape, "user", (_VALUES,), config.bad_rows)
    if found.again and config.bad_rows == "fail":
        raise InputError(
            f"{source.name} lists users more than once, {found.again:,} rows too many: {'; '.join(found.twice)}. Keep "
            "one row a user, or let the least one stay with --set input.bad_rows=drop"
        )
    return ReadUsers(with_attributes(found.rows, attributes, _VALUES), found.findings)


def _users_source(
    spark: SparkSession,
    layout: MovieLensLayout | GenericLayout,
    config: InputConfig,
    attributes: Sequence[Attribute],
) -> Source:
    """Raw columns ``user`` and those of the attributes."""
    further = raw_columns(attributes)
    if config.users_path:
        entries = find_entries(spark, config.users_path, "input.users_path")
        found = generic_layout(spark, entries, None)
        if found is None:
            raise InputError(f"input.users_path = {config.users_path!r} is neither CSV, Parquet nor Delta")
        keys = {"user": "input.users_id_column", **dict.fromkeys(further, KEY)}
        return rows_source(spark, found, {"user": config.users_id_column, **further}, keys, config)
    if isinstance(layout, MovieLensLayout) and layout.users is not None:
        dat = layout.release == DAT_RELEASE
        columns = _DAT_COLUMNS if dat else _U_COLUMNS
        return _release_source(spark, layout.users, columns, "::" if dat else r"\|", further)
    raise InputError(
        f"{KEY} = {config.user_columns!r}, and there is no file of users beside the events; give it with "
        "input.users_path"
    )


def _release_source(
    spark: SparkSession, file: Entry, columns: Sequence[str], separator: str, further: dict[str, str]
) -> Source:
    for name in further.values():
        if name not in columns:
            raise InputError(f"{file.shown} has no column {name!r}; it has {', '.join(columns)}; correct {KEY}")
    raw = {name: place for place, name in further.items()}
    return separated_source(spark, file, ["user", *(raw.get(name, name) for name in columns)], separator)
