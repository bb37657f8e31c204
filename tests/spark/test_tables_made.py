"""Rows whose files the tasks write themselves: the same table as by Spark's writer, and the same refusals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from fm_spark.config import Config
from fm_spark.errors import StorageError, TableError
from fm_spark.tables import contracts as C
from fm_spark.tables.made import Made, Make
from fm_spark.tables.store import TableStore

TYPES = {
    "list_name": T.StringType(), "user_id": T.LongType(), "rank": T.IntegerType(), "item_id": T.LongType(),
    "title": T.StringType(), "score": T.DoubleType(), "source": T.StringType(),
    "contributions": T.ArrayType(
        T.StructType(
            [
                T.StructField("kind", T.StringType()),
                T.StructField("item_id", T.StringType()),
                T.StructField("value", T.DoubleType()),
            ]
        )
    ),
    "because": T.StringType(), "diversity_cost": T.DoubleType(),
}  # fmt: skip
SCHEMA = T.StructType([T.StructField(name, type_) for name, type_ in TYPES.items()])
WHY = [{"kind": "item_bias", "item_id": None, "value": 0.5}]


def lists(given: dict[str, list[Any]]) -> Make:
    """Makes two rows for each user; ``given`` has other values of columns.

    A function within a function, which workers get by value: they cannot import this module.
    """

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            users = [user for user in batch.column(0).to_pylist() for _ in range(2)]
            n = len(users)
            if not n:
                continue
            values = {
                "list_name": ["default"] * n,
                "user_id": users,
                "rank": [1, 2] * (n // 2),
                "item_id": [7, 8] * (n // 2),
                "title": ["Seven", "Acht ü"] * (n // 2),
                "score": [1.5, -0.25] * (n // 2),
                "source": ["model"] * n,
                "contributions": [WHY, None] * (n // 2),
                "because": [None] * n,
                "diversity_cost": [None] * n,
            }
            values |= {name: column * (n // 2) for name, column in given.items()}
            types = {"rank": pa.int32(), "because": pa.string(), "diversity_cost": pa.float64()}
            yield pa.RecordBatch.from_pydict(
                {name: pa.array(column, types.get(name)) for name, column in values.items()}
            )

    return make


def made(spark: SparkSession, run_id: str, users: int = 6, **given: list[Any]) -> Made:
    source = spark.range(0, users, 1, 2)
    return Made(source, lists(given), SCHEMA).with_same(run_id=run_id, model_version=f"fm-{run_id}")


@pytest.fixture
def store(spark: SparkSession, config: Config) -> TableStore:
    return TableStore(spark, config.tables.root)


def files(store: TableStore) -> set[str]:
    return {path.name for path in Path(store.path(C.TOP_N)).glob("*.parquet")}


def rows(store: TableStore, run_id: str) -> list[Any]:
    return store.read(C.TOP_N).where(f"run_id = '{run_id}'").orderBy("user_id", "rank").collect()


def test_the_table_is_the_one_that_sparks_writer_makes(spark: SparkSession, store: TableStore, tmp_path: Path) -> None:
    other = TableStore(spark, str(tmp_path / "other"))
    version = store.write_made(made(spark, "r1"), C.TOP_N, "r1", read={"events": 3})
    other.write(made(spark, "r1").frame(), C.TOP_N, "r1", in_order=True, read={"events": 3})
    assert version == 1
    assert rows(store, "r1") == rows(other, "r1")
    assert len(rows(store, "r1")) == 12
    ours, theirs = (DeltaTable(s.path(C.TOP_N)) for s in (store, other))
    assert ours.schema() == theirs.schema()
    assert ours.to_pandas().equals(theirs.to_pandas())
    bounds = ["num_records", "min.run_id", "max.run_id", "min.user_id", "max.user_id", "null_count.user_id"]
    entries = [
        pa.table(t.get_add_actions(flatten=True)).sort_by("min.user_id").select(bounds).to_pylist()
        for t in (ours, theirs)
    ]
    assert entries[0] == entries[1]
    commits = [s.commit(C.TOP_N, 1) for s in (store, other)]
    assert [(c.run_id, c.rows, c.read) for c in commits if c] == [("r1", 12, {"events": 3})] * 2


def test_a_run_replaces_its_own_rows_in_one_commit_and_no_others(spark: SparkSession, store: TableStore) -> None:
    store.write_made(made(spark, "r1"), C.TOP_N, "r1")
    store.write_made(made(spark, "r2", users=4), C.TOP_N, "r2")
    before = rows(store, "r1")
    assert store.write_made(made(spark, "r2", users=3), C.TOP_N, "r2") == 3
    assert (rows(store, "r1"), len(rows(store, "r2"))) == (before, 6)
    assert len(store.read(C.TOP_N, 2).where("run_id = 'r2'").collect()) == 8
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 3)
    changes = feed.load(store.path(C.TOP_N)).groupBy("_change_type").count().collect()
    assert {row["_change_type"]: row["count"] for row in changes} == {"delete": 8, "insert": 6}


def test_a_file_with_rows_of_two_runs_is_left_to_spark(spark: SparkSession, store: TableStore) -> None:
    for run in ("r1", "r2"):
        store.write_made(made(spark, run), C.TOP_N, run)
    spark.sql(f"OPTIMIZE delta.`{store.path(C.TOP_N)}`")
    before = rows(store, "r1")
    store.write_made(made(spark, "r2", users=2), C.TOP_N, "r2")
    assert (rows(store, "r1"), len(rows(store, "r2"))) == (before, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"score": [1.0, math.nan]}, "score"),
        ({"score": [1.0, math.inf]}, "score"),
        ({"score": [1.0, None]}, "score"),
        ({"rank": [0, 1]}, "rank"),
        ({"source": ["model", "guess"]}, "source"),
        ({"item_id": [None, None]}, "item_id"),
        ({"title": [None, "b"]}, "title"),
        ({"rank": [1, 1]}, r"rank.*after"),
        ({"rank": [2, 1]}, r"rank.*after"),
    ],
    ids=["nan", "infinite", "none", "rank 0", "source", "nulls", "title", "repeated", "descending"],
)
def test_rows_that_break_the_contract_leave_nothing(
    spark: SparkSession, store: TableStore, given: dict[str, list[Any]], message: str
) -> None:
    store.write_made(made(spark, "r1", users=2), C.TOP_N, "r1")
    version, there = store.version(C.TOP_N), files(store)
    with pytest.raises(TableError, match=f"top_n.*{message}"):
        store.write_made(made(spark, "r2", **given), C.TOP_N, "r2")
    assert store.version(C.TOP_N) == version
    assert files(store) == there


def test_the_files_of_tasks_that_did_not_fail_go_as_well(spark: SparkSession, store: TableStore) -> None:
    good, bad = lists({}), lists({"rank": [0, 1]})

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            late = batch.num_rows and batch.column(0)[0].as_py() >= 3
            if late:
                time.sleep(1)  # the other task has written its file by then
            yield from (bad if late else good)([batch])

    broken = Made(spark.range(0, 6, 1, 2), make, SCHEMA).with_same(run_id="r1", model_version="fm-r1")
    with pytest.raises(TableError, match=r"top_n.*rank"):
        store.write_made(broken, C.TOP_N, "r1")
    assert files(store) == set()


def test_rows_of_another_run_are_refused(spark: SparkSession, store: TableStore) -> None:
    with pytest.raises(TableError, match=r"run_id must be r2 \(.*r1"):
        store.write_made(made(spark, "r1"), C.TOP_N, "r2")
    assert files(store) == set()


def test_nothing_made_is_an_empty_run(spark: SparkSession, store: TableStore) -> None:
    store.write_made(made(spark, "r1", users=0), C.TOP_N, "r1")
    assert rows(store, "r1") == []
    assert store.version_of_run(C.TOP_N, "r1") == 1


def test_what_the_disk_says_in_a_task_is_one_message(
    spark: SparkSession, store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise OSError(28, "No space left on device")
        yield from batches

    broken = Made(spark.range(2), full, SCHEMA, {"run_id": "r1", "model_version": "m"})
    with pytest.raises(StorageError, match=r"cannot write .*top_n: the disk is full"):
        store.write_made(broken, C.TOP_N, "r1")
