"""Tags as features: nothing that was given after the test starts, and no rare ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from event_inputs import csv_folder, settings, write
from pyspark.sql import DataFrame, SparkSession

from fm_spark.events.catalogue import load_catalogue
from fm_spark.events.tags import MIN_ITEMS, known_tags
from fm_spark.tables.contracts import ITEMS
from fm_spark.tables.store import TableStore
from jobs.events import run


def at(second: int | None) -> datetime | None:
    return None if second is None else datetime.fromtimestamp(second, UTC)


def events(spark: SparkSession) -> DataFrame:
    """User 1 is tested from second 100 on, user 2 from 200 on, user 3 not at all."""
    rows = [
        (1, 10, "train"),
        (1, 100, "test"),
        (1, 110, "unused"),
        (1, 120, "test"),
        (2, 200, "test"),
        (3, 50, "train"),
    ]
    return spark.createDataFrame([(u, at(t), s) for u, t, s in rows], "user_id bigint, time timestamp, split string")


@pytest.mark.parametrize(
    ("user", "second", "counts"),
    [
        (1, 99, True), (1, 100, False), (1, 115, False), (1, None, False), (2, 199, True), (2, 200, False),
        (3, 10_000, True), (3, None, True), (4, 99, True), (4, 100, False), (None, 99, True), (None, 150, False),
    ],
)  # fmt: skip
def test_what_counts(spark: SparkSession, user: int | None, second: int | None, counts: bool) -> None:
    given = [(user, item, "odd", at(second)) for item in range(MIN_ITEMS)]
    tags = spark.createDataFrame(given, "user_id bigint, item_id bigint, tag string, time timestamp")
    assert known_tags(tags, events(spark)).count() == (MIN_ITEMS if counts else 0)


def test_rare_tags_and_late_ones_are_not_in_the_items(spark: SparkSession, tmp_path: Path) -> None:
    # a user's held-out events are his last ones: those of items 9 and 10, at second 109 and 110
    ratings = [f"{user},{item},5.0,{100 + item}" for user in (1, 2) for item in range(1, 11)]
    folder = csv_folder(tmp_path / "in", ratings, [f"{item},Film {item} (1999)," for item in range(1, 12)])
    given = [f"1,{item}, Good ,108" for item in range(1, 6)] + [f"2,{item},good,108" for item in (1, 2)]
    given += [f"1,{item},late,109" for item in range(1, 6)] + [f"1,{item},rare,101" for item in range(1, 5)]
    given += ["1,5,rare,109", "7,11,good,105"]
    write(folder / "tags.csv", "\n".join(["userId,movieId,tag,timestamp", *given]) + "\n")
    tables = str(tmp_path / "tables")
    run(spark, settings(folder, tables__root=tables, train__tags=True))
    catalogue = load_catalogue(TableStore(spark, tables).rows(ITEMS))
    expected = [["good"]] * 5 + [[]] * 5 + [["good"]]
    assert catalogue.attributes == [{"__tags__": tags} for tags in expected]
    rows = TableStore(spark, tables).read(ITEMS).orderBy("item_id").select("tags").collect()
    assert rows[4]["tags"] == ["good", "late", "rare"]  # what clusters are described by: all of them
