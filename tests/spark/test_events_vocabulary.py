"""The vocabulary only grows; the vectors of events follow it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from fm_spark.events.attributes import TYPE
from fm_spark.events.encoding import encode_items
from fm_spark.events.items import catalogue_rows, field_values
from fm_spark.events.vocabulary import UNSEEN, extend_vocabulary
from fm_spark.tables.contracts import VOCABULARY
from fm_spark.tables.store import TableStore


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> TableStore:
    return TableStore(spark, str(tmp_path / "tables"))


def catalogue(spark: SparkSession, items: dict[object, list[str]], kind: str = "bigint") -> DataFrame:
    rows = [(item, genres, f"t{item}", None, [], 1, True) for item, genres in items.items()]
    return spark.createDataFrame(
        rows,
        f"item_id {kind}, genres array<string>, title string, year int, tags array<string>, count bigint, "
        "listed boolean",
    )


def numbered(vocabulary: pd.DataFrame) -> list[tuple[str, str]]:
    assert vocabulary["feature"].tolist() == list(range(len(vocabulary)))
    return list(zip(vocabulary["field"], vocabulary["value"], strict=True))


def test_first_numbering_and_growth(spark: SparkSession, store: TableStore) -> None:
    first = numbered(extend_vocabulary(store, field_values(catalogue(spark, {10: ["War", "Art"], 9: []})), "r1"))
    assert first == [
        ("item", UNSEEN), ("item", "9"), ("item", "10"), ("genre", UNSEEN), ("genre", "Art"), ("genre", "War"),
    ]  # fmt: skip
    same = field_values(catalogue(spark, {9: ["War"], 10: ["Art"]}).repartition(3))
    assert numbered(extend_vocabulary(store, same, "r2")) == first
    assert store.version(VOCABULARY) == 1
    more = field_values(catalogue(spark, {8: ["Zoo"], 10: ["Bio"], 11: []}))
    grown = extend_vocabulary(store, more, "r3")
    assert numbered(grown) == [*first, ("item", "8"), ("item", "11"), ("genre", "Bio"), ("genre", "Zoo")]
    stored = store.read(VOCABULARY).orderBy("feature").collect()
    assert [(row["field"], row["value"]) for row in stored] == numbered(grown)
    assert {row["value"]: row["run_id"] for row in stored}["8"] == "r3"
    assert store.version(VOCABULARY) == 2


def test_text_ids_are_numbered_by_code_point(spark: SparkSession, store: TableStore) -> None:
    items = catalogue(spark, {"b": [], "10": [], "9": [], "é": [], "B": []}, "string")
    found = [value for field, value in numbered(extend_vocabulary(store, field_values(items), "r")) if field == "item"]
    assert found == [UNSEEN, "10", "9", "B", "b", "é"]


def test_other_fields_come_after_and_bring_their_order(store: TableStore) -> None:
    values = pd.DataFrame(
        [("history_liked_0.8", "9"), ("history_liked_0.8", "10"), ("genre", "x"), ("genre", "x")],
        columns=["field", "value"],
    )
    assert numbered(extend_vocabulary(store, values, "r")) == [
        ("genre", UNSEEN), ("genre", "x"),
        ("history_liked_0.8", UNSEEN), ("history_liked_0.8", "9"), ("history_liked_0.8", "10"),
    ]  # fmt: skip


def test_vectors_of_items(spark: SparkSession, store: TableStore) -> None:
    items = catalogue(spark, {1: ["b", "a", "c"], 2: [], 3: ["b"]})
    vocabulary = extend_vocabulary(store, field_values(items), "r")
    feature = {(row.field, row.value): row.feature for row in vocabulary.itertuples()}
    rows = {row["item_id"]: row for row in encode_items(items, vocabulary).collect()}
    genres = [feature["genre", name] for name in "abc"]
    assert rows[1]["item_feature"] == feature["item", "1"]
    assert rows[1]["indices"] == [feature["item", "1"], *genres]
    assert rows[1]["values"] == pytest.approx([1.0] + [1 / math.sqrt(3)] * 3)
    assert (rows[2]["indices"], rows[2]["values"]) == ([feature["item", "2"]], [1.0])
    assert rows[3]["values"] == [1.0, 1.0]


def test_indices_ascend_when_genres_are_older_than_the_item(spark: SparkSession, store: TableStore) -> None:
    extend_vocabulary(store, field_values(catalogue(spark, {1: ["a"]})), "r1")
    items = catalogue(spark, {1: ["a"], 2: ["a", "b"]})
    rows = {
        row["item_id"]: row
        for row in encode_items(items, extend_vocabulary(store, field_values(items), "r2")).collect()
    }
    assert rows[2]["indices"] == sorted(rows[2]["indices"])
    at = rows[2]["indices"].index(rows[2]["item_feature"])
    assert at == 1
    assert rows[2]["values"] == pytest.approx([2**-0.5, 1.0, 2**-0.5])


def test_catalogue_joins_file_events_and_tags(spark: SparkSession) -> None:
    histories = spark.createDataFrame([(1,), (1,), (7,)], "item_id bigint")
    listed = spark.createDataFrame(
        [(1, "One", ["a"], 1999, {}), (2, " ", [], None, {})],
        f"item_id bigint, title string, genres array<string>, year int, attributes {TYPE}",
    )
    tags = spark.createDataFrame([(1, "x"), (1, "b"), (1, "b"), (1, "a"), (9, "z")], "item_id bigint, tag string")
    rows = sorted((tuple(row) for row in catalogue_rows(histories, listed, tags).collect()), key=lambda row: row[0])
    assert rows == [
        (1, "One", ["a"], 1999, ["b", "a", "x"], 2, {}, True),
        (2, "2", [], None, [], 0, {}, True),
        (7, "7", [], None, [], 1, {}, False),
    ]
    bare = sorted((tuple(row) for row in catalogue_rows(histories, None, None).collect()), key=lambda row: row[0])
    assert bare == [(1, "1", [], None, [], 2, {}, False), (7, "7", [], None, [], 1, {}, False)]
