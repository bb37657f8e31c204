"""The steps from checked input to events and catalogue, with their checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fm_spark.config_sections import EventsConfig
from fm_spark.errors import InputError
from fm_spark.events.cleaning import histories
from fm_spark.events.items import catalogue_rows
from fm_spark.events.quality import MAX_EXAMPLES, Finding
from fm_spark.events.read import RawInput
from fm_spark.events.splits import add_split
from fm_spark.events.tags import known_tags


@dataclass(frozen=True)
class Totals:
    """Counts of the kept events; ``items`` counts items with events, ``catalogue`` all of them."""

    rows_read: int
    events: int
    users: int
    items: int
    catalogue: int
    positives: int
    train: int
    test: int
    unused: int


@dataclass(frozen=True)
class Derived:
    """Events without features, the catalogue, and what was found.

    Attributes:
        events: user_id, item_id, time, value, weight, label, position, split; cached.
        items: the rows of :func:`~fm_spark.events.items.catalogue_rows`; cached.
    """

    events: DataFrame
    items: DataFrame
    totals: Totals
    findings: list[Finding]


@contextmanager
def derived(raw: RawInput, config: EventsConfig, tags: bool = False) -> Iterator[Derived]:
    """Cleans, orders, labels and splits the events, makes the catalogue, and checks that both can be used.

    Args:
        tags: whether the catalogue holds the tags that training may know.

    Raises:
        InputError: fewer than two users or items, no positive event, or nothing held out.
    """
    clean = histories(raw.events, config.positive_threshold if raw.rated else None)
    if config.split == "global_time":
        clean = clean.persist(StorageLevel.MEMORY_AND_DISK)
    events = add_split(clean, config).persist(StorageLevel.MEMORY_AND_DISK)
    known = known_tags(raw.tags, events) if tags and raw.tags is not None else None
    rows = catalogue_rows(events, raw.items, raw.tags, raw.attributes, known)
    items = rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        found = _count(events)
        listed = items.agg(
            F.count(F.lit(1)).alias("catalogue"),
            F.coalesce(F.sum((F.col("count") > 0).cast("int")), F.lit(0)).alias("items"),
            F.coalesce(F.sum(((F.col("count") > 0) & ~F.col("listed")).cast("int")), F.lit(0)).alias("missing"),
        ).collect()[0]
        totals = Totals(raw.rows_read, found["events"], found["users"], listed["items"], listed["catalogue"],
                        found["positives"], found["train"], found["test"], found["unused"])  # fmt: skip
        _check_usable(raw, config, totals, found)
        missing = _missing_items(items, listed["missing"]) if raw.items is not None else []
        findings = [*raw.findings, *_cleaning_findings(events, found), *missing, *_total_findings(totals)]
        yield Derived(events, items, totals, findings)
    finally:
        for frame in (items, events, clean):
            frame.unpersist()


def _count(events: DataFrame) -> dict[str, Any]:
    """All counts of the cleaned events in one pass."""

    def total(condition: Column, name: str) -> Column:
        return F.coalesce(F.sum(condition.cast("bigint")), F.lit(0)).alias(name)

    row = events.agg(
        F.count(F.lit(1)).alias("events"),
        total(F.col("position") == 0, "users"),
        total(F.col("label") == 1, "positives"),
        *[total(F.col("split") == split, split) for split in ("train", "test", "unused")],
        *[total(F.col(name), name) for name in ("copies", "older", "tied")],
        F.min("value").alias("least"),
        F.max("value").alias("most"),
    ).collect()[0]
    return row.asDict()


def _check_usable(raw: RawInput, config: EventsConfig, totals: Totals, found: dict[str, Any]) -> None:
    if totals.users < 2 or totals.items < 2:
        raise InputError(
            f"{raw.source} has {totals.users} user(s) and {totals.items} item(s) after cleaning; a recommender needs "
            "at least two of each: check input.user_column and input.item_column, or give more events"
        )
    if totals.positives == 0:
        raise InputError(
            f"{raw.source}: none of the {totals.events:,} events is positive with events.positive_threshold = "
            f"{config.positive_threshold:g}; the values lie between {found['least']:g} and {found['most']:g}: "
            "set events.positive_threshold in that range"
        )
    if totals.test == 0:
        keys = "events.min_positives" if config.split != "global_time" else "events.min_positives or events.split"
        raise InputError(
            f"{raw.source}: events.split = {config.split} holds nothing out for the test: no user with at least "
            f"events.min_positives = {config.min_positives} positives ({totals.positives:,} positives of "
            f"{totals.users:,} users) has one in the last events.test_fraction = {config.test_fraction:g}; "
            f"change {keys}, or lower events.positive_threshold = {config.positive_threshold:g}"
        )


def _missing_items(items: DataFrame, missing: int) -> list[Finding]:
    rows = items.where(~F.col("listed")).orderBy("item_id").limit(MAX_EXAMPLES).collect() if missing else []
    shown = tuple(f"item {row['item_id']}: {row['count']} events" for row in rows)
    detail = "items with events that the items file does not list; their title is their id"
    return [Finding("missing_items", missing, "kept", detail, shown)]


def _cleaning_findings(events: DataFrame, found: dict[str, Any]) -> list[Finding]:
    def examples(column: str, text: str) -> tuple[str, ...]:
        if not found[column]:
            return ()
        rows = events.where(F.col(column) > 0).orderBy("user_id", "position").limit(MAX_EXAMPLES)
        shown = rows.select("user_id", "item_id", F.col("time").cast("string").alias("time"), column).collect()
        return tuple(text.format(**row.asDict()) for row in shown)

    return [
        Finding("exact_duplicates", found["copies"], "dropped", "rows that repeat another row in every column",
                examples("copies", "user {user_id}, item {item_id}: {copies} more")),
        Finding("older_ratings", found["older"], "dropped",
                "other events of the same user and item; the latest stays, at equal times the largest value",
                examples("older", "user {user_id}, item {item_id}: kept the one of {time}, dropped {older}")),
        Finding("ties_in_time", found["tied"], "kept",
                "events at the same time as the user's event before; ordered by item id",
                examples("tied", "user {user_id}, item {item_id}, {time}")),
    ]  # fmt: skip


def _total_findings(totals: Totals) -> list[Finding]:
    details = {
        "rows_read": (totals.rows_read, "rows of events in the input, header lines excluded"),
        "events_kept": (totals.events, "events after cleaning, one a user and item"),
        "users": (totals.users, "users with events"),
        "items": (totals.items, "items with events"),
        "catalogue_items": (totals.catalogue, "items with events or in the items file"),
        "positives": (totals.positives, "liked events (label 1)"),
        "test_events": (totals.test, "positives held out for the test"),
        "unused_events": (totals.unused, "events after the cut that are not tested"),
    }
    return [Finding(check, rows, "counted", detail) for check, (rows, detail) in details.items()]
