"""Histories: duplicates, order and labels; nothing about an event depends on later ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.events.attributes import TYPE
from fm_spark.events.cleaning import histories
from fm_spark.events.encoding import encode_events, encode_items
from fm_spark.events.items import catalogue_rows, field_values
from fm_spark.events.vocabulary import extend_vocabulary
from fm_spark.tables.store import TableStore


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> TableStore:
    return TableStore(spark, str(tmp_path / "tables"))


SCHEMA = "user_id bigint, item_id bigint, t bigint, value double, weight double"


def events(spark: SparkSession, rows: list[tuple[Any, ...]], schema: str = SCHEMA) -> DataFrame:
    full = [(*row, 1.0) if len(row) == 4 else row for row in rows]
    frame = spark.createDataFrame(full, schema)
    return frame.select("user_id", "item_id", F.timestamp_seconds("t").alias("time"), "value", "weight")


def collected(frame: DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.select(*columns).collect())


def test_one_event_a_user_and_item_stays(spark: SparkSession) -> None:
    rows = [
        (1, 10, 5, 3.0), (1, 10, 5, 3.0), (1, 10, 5, 3.0),  # exact duplicates
        (1, 20, 6, 2.0), (1, 20, 9, 1.0), (1, 20, 6, 2.0),  # later one wins, though smaller; one copy of an older one
        (1, 30, 7, 2.0), (1, 30, 7, 4.0),  # equal times: the larger value
        (2, 10, 5, 3.0),
    ]  # fmt: skip
    clean = histories(events(spark, rows), 3.0)
    found = collected(clean, "user_id", "item_id", F.unix_timestamp("time"), "value", "copies", "older")  # type: ignore[arg-type]
    assert found == [(1, 10, 5, 3.0, 2, 0), (1, 20, 9, 1.0, 1, 1), (1, 30, 7, 4.0, 0, 1), (2, 10, 5, 3.0, 0, 0)]


def test_order_ties_and_labels(spark: SparkSession) -> None:
    rows = [(1, 3, 5, 4.0), (1, 2, 5, 3.9), (1, 9, 1, 5.0), (1, 1, 6, 1.0), (2, 1, 5, 4.0)]
    clean = histories(events(spark, rows), 4.0)
    assert collected(clean, "user_id", "position", "item_id", "label", "tied") == [
        (1, 0, 9, 1.0, 0), (1, 1, 2, 0.0, 0), (1, 2, 3, 1.0, 1), (1, 3, 1, 0.0, 0), (2, 0, 1, 1.0, 0),
    ]  # fmt: skip
    assert {row["label"] for row in histories(events(spark, rows), None).collect()} == {1.0}


def test_text_ids_are_ordered_by_code_point(spark: SparkSession) -> None:
    schema = SCHEMA.replace("item_id bigint", "item_id string")
    clean = histories(events(spark, [(1, name, 5, 1.0) for name in ("é", "b", "B", "10", "9")], schema), None)
    assert [item for _, item in collected(clean, "position", "item_id")] == ["10", "9", "B", "b", "é"]


def random_log(n: int, seed: int) -> list[tuple[Any, ...]]:
    draw = np.random.default_rng(seed)
    pairs = draw.permutation(20 * 30)[:n]  # no user rates an item twice
    return [
        (int(p) // 30, int(p) % 30, int(t), float(v))
        for p, t, v in zip(pairs, draw.integers(0, 50, n), draw.integers(1, 6, n), strict=True)
    ]


def test_partitioning_changes_nothing(spark: SparkSession) -> None:
    log = random_log(300, 0) + random_log(100, 1)
    one = histories(events(spark, log).repartition(1), 3.0)
    many = histories(events(spark, log[::-1]).repartition(7), 3.0)
    assert collected(one, *one.columns) == collected(many, *one.columns)


def test_later_events_change_nothing_about_earlier_ones(spark: SparkSession, store: TableStore) -> None:
    log = random_log(300, 2)
    cut = 25
    early = [row for row in log if row[2] <= cut]
    items = spark.range(30).select(
        F.col("id").alias("item_id"), F.lit("t").alias("title"), F.array(F.lit("a"), F.lit("b")).alias("genres"),
        F.lit(None).cast("int").alias("year"), F.create_map().cast(TYPE).alias("attributes"),
    )  # fmt: skip

    def derive(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        clean = histories(events(spark, rows), 3.0)
        catalogue = catalogue_rows(clean, items, None)
        vocabulary = extend_vocabulary(store, field_values(catalogue), "r")
        encoded = encode_events(clean, encode_items(catalogue, vocabulary))
        seconds = encoded.withColumn("t", F.unix_timestamp("time"))
        return collected(seconds, "user_id", "position", "item_id", "t", "label", "item_feature", "indices", "values")

    whole = derive(log)
    assert len(early) < len(log) == len(whole)
    assert [row for row in whole if row[3] <= cut] == derive(early)
