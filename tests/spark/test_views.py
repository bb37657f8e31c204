"""Views for Spark SQL show one publication, also after newer runs have written."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession
from small_run import copy_run, write_run

import fm_spark.read
from fm_spark.config import Config
from fm_spark.errors import TableError
from fm_spark.tables.publications import publish, published
from fm_spark.tables.store import TableStore
from fm_spark.tables.views import create_views


@pytest.fixture
def store(spark: SparkSession, config: Config) -> TableStore:
    """Run r1 is published; r2 has written its lists, clusters and events since."""
    store = TableStore(spark, config.tables.root)
    copy_run(store)
    publish(store, "r1", "fm-r1")
    write_run(store, "r2", ("events", "recommend", "cluster"))
    return store


@pytest.mark.parametrize("database", [None, "odd_db"])
def test_views_show_the_publication_and_not_what_was_written_since(store: TableStore, database: str | None) -> None:
    spark = store.spark
    if database:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
    made = create_views(spark, store.root, database=database)
    of = "" if database is None else f"`{database}`."
    assert len(made) == len(published(store).tables) + 1  # the lists have two
    rows = spark.sql(f"SELECT DISTINCT run_id, model_version FROM {of}current_top_n").collect()
    assert [tuple(row) for row in rows] == [("r1", "fm-r1")]
    assert spark.sql(f"SELECT DISTINCT run_id FROM {of}current_items").collect()[0][0] == "r1"
    purposes = spark.sql(f"SELECT purpose FROM {of}current_fm_model ORDER BY purpose").collect()
    assert [row[0] for row in purposes] == ["evaluation", "publish"]

    nested = spark.sql(f"SELECT * FROM {of}current_top_n_nested ORDER BY user_id").collect()
    assert [row["user_id"] for row in nested] == [10, 11, 12]
    assert [(one["rank"], one["item_id"]) for one in nested[0]["items"]] == [(1, 4), (2, 5)]
    assert nested[0]["items"][0].asDict().keys() == {"rank", "item_id", "title", "score", "source"}


def test_views_need_a_publication_and_a_database_that_is_a_name(store: TableStore) -> None:
    with pytest.raises(TableError, match="no publication of run r2"):
        create_views(store.spark, store.root, "r2")
    with pytest.raises(TableError, match=r"database 'a; DROP TABLE b' is not a name of letters"):
        create_views(store.spark, store.root, database="a; DROP TABLE b")


def test_what_spark_wrote_is_read_without_spark(store: TableStore) -> None:
    publish(store, "r1", "fm-r1")
    run = fm_spark.read.open(store.root)
    for name in run.publication.tables:
        table = run.table(name)
        assert table.num_rows, name
        assert set(table["run_id"].to_pylist()) == {"r1"}, name
    assert run.top_n(10)["item_id"].to_pylist() == [4, 5]
    assert run.model()["model_version"].to_pylist() == ["fm-r1"]
    assert run.changes(since="r1").num_rows == 0
