"""Runs and publications: which run a job continues, and which versions belong together."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_run import START, all_rows, copy_run, frame, write_run

from fm_spark.config import Config
from fm_spark.errors import TableError
from fm_spark.tables import contracts as C
from fm_spark.tables.publications import publish, published
from fm_spark.tables.runs import EVALUATION, PUBLISH, check_one_run, events_run_id, latest_model, model_run_id
from fm_spark.tables.store import TableStore
from jobs import publish as job


@pytest.fixture
def store(spark: SparkSession, config: Config) -> TableStore:
    return TableStore(spark, config.tables.root)


def test_a_publication_names_the_versions_and_metrics_of_its_run(store: TableStore, config: Config) -> None:
    first = copy_run(store)
    second = write_run(store, "r2")
    before = datetime.now(UTC)
    result = job.run(store.spark, replace(config, run=replace(config.run, id="r1")))

    assert (result.run_id, result.model_version) == ("r1", "fm-r1")
    # the vocabulary did not grow in the second run, so it has no version of its own
    assert published(store).tables == first == {**second, **first}
    assert published(store).metrics == {
        "fm.mrr": 0.5, "fm.ndcg_at_10": 0.5, "popularity.mrr": 0.25, "popularity.ndcg_at_10": 0.25,
    }  # fmt: skip
    assert before - timedelta(seconds=1) < published(store).published_at <= datetime.now(UTC)

    publish(store, "r2", "fm-r2")
    assert published(store).tables == {**second, "vocabulary": 1}
    assert (published(store).run_id, published(store, "r1").tables) == ("r2", first)
    rows = DeltaTable(store.path(C.PUBLICATIONS)).to_pandas()
    assert sorted(rows["run_id"]) == ["r1", "r2"]


def test_publishing_again_changes_nothing_and_no_order(store: TableStore) -> None:
    copy_run(store)
    first = publish(store, "r1", "fm-r1")
    assert publish(store, "r1", "fm-r1") == first
    assert store.version(C.PUBLICATIONS) == first.version == 1

    write_run(store, "r2")
    assert publish(store, "r2", "fm-r2").row.publication == 2
    version = write_run(store, "r1", ("recommend",))["top_n"]
    again = publish(store, "r1", "fm-r1")
    assert again.row == replace(first.row, tables={**first.row.tables, "top_n": version})
    assert (again.row, again.latest) == (published(store, "r1"), False)
    assert published(store).run_id == "r2"
    assert sorted(DeltaTable(store.path(C.PUBLICATIONS)).to_pandas()["publication"]) == [1, 2]


def test_lists_follow_the_events_that_the_model_was_trained_on(store: TableStore) -> None:
    trained_on = copy_run(store)
    store.write(frame(store.spark, C.EVENTS, all_rows("r1")["events"][:3]), C.EVENTS, "r1")
    publish(store, "r1", "fm-r1")
    assert published(store).tables["events"] == trained_on["events"] == store.version(C.EVENTS) - 1


def test_lists_that_were_made_from_newer_events_are_published_with_them(store: TableStore) -> None:
    copy_run(store)
    version = store.write(frame(store.spark, C.EVENTS, all_rows("r2")["events"]), C.EVENTS, "r2")
    rows = frame(store.spark, C.TOP_N, all_rows("r1")["top_n"]).coalesce(1).sortWithinPartitions("user_id", "rank")
    store.write(rows, C.TOP_N, "r1", in_order=True, read={"events": version})
    row = publish(store, "r1", "fm-r1").row
    assert (row.tables["events"], row.input_versions["events"]) == (version, version - 1)


def test_a_run_is_published_only_when_it_is_whole(store: TableStore) -> None:
    copy_run(store, ("events", "train"))
    for job_name in ("evaluate", "recommend", "cluster"):
        with pytest.raises(TableError, match=rf"run r1 cannot be published.*spark-submit.sh {job_name} --run-id r1"):
            publish(store, "r1", "fm-r1")
        contracts = {"evaluate": [C.EVALUATION], "recommend": [C.TOP_N], "cluster": [C.ITEM_CLUSTERS]}[job_name]
        for contract in contracts:
            store.write(frame(store.spark, contract, all_rows("r1")[contract.name]), contract, "r1")
    assert not store.exists(C.PUBLICATIONS)
    publish(store, "r1", "fm-r1")
    assert published(store).run_id == "r1"

    with pytest.raises(TableError, match=r"run r2 .*evaluation has no rows .*evaluate --run-id r2"):
        publish(store, "r2", "fm-r2")
    other = frame(store.spark, C.TOP_N, all_rows("r1")["top_n"]).withColumn("model_version", F.lit("older"))
    store.write(other, C.TOP_N, "r1")
    with pytest.raises(TableError, match=r"top_n has no rows of it and its model fm-r1.*recommend --run-id r1"):
        publish(store, "r1", "fm-r1")


def test_what_is_not_published_cannot_be_read(store: TableStore) -> None:
    with pytest.raises(TableError, match=r"no table publications .*publish first"):
        published(store)
    copy_run(store)
    publish(store, "r1", "fm-r1")
    with pytest.raises(TableError, match="no publication of run r9"):
        published(store, "r9")


def test_jobs_continue_the_run_of_what_they_read(store: TableStore, config: Config) -> None:
    for question in (events_run_id, model_run_id):
        with pytest.raises(TableError, match=r"run ./spark-submit.sh (events|train) first"):
            question(store, config)
    copy_run(store, ("events", "train"))
    assert (events_run_id(store, config), model_run_id(store, config)) == ("r1", "r1")
    write_run(store, "r2", ("events",))
    assert (events_run_id(store, config), model_run_id(store, config)) == ("r2", "r1")
    named = replace(config, run=replace(config.run, id="mine"))
    assert (events_run_id(store, named), model_run_id(store, named)) == ("mine", "mine")


def test_the_newest_model_of_a_purpose(store: TableStore) -> None:
    with pytest.raises(TableError, match=r"no model yet .*run ./spark-submit.sh train first"):
        latest_model(store, PUBLISH)
    rows = all_rows("r2")["fm_model"]
    store.write(frame(store.spark, C.FM_MODEL, rows), C.FM_MODEL, "r2")
    older = [{**row, "created_at": START - timedelta(days=1)} for row in all_rows("r1")["fm_model"]]
    store.write(frame(store.spark, C.FM_MODEL, older), C.FM_MODEL, "r1")

    assert latest_model(store, PUBLISH).model_version == "fm-r2"
    assert latest_model(store, EVALUATION).model_version == "fm-r2-eval"
    model = latest_model(store, PUBLISH, "r1")
    assert (model.run_id, model.created_at, model.k, model.decays) == ("r1", START - timedelta(days=1), 3, [0.8])
    assert model.hyperparameters == {"k": "3", "learning_rate": "0.1"}
    with pytest.raises(TableError, match=r"no model yet of run r9 .*train --run-id r9 first"):
        latest_model(store, PUBLISH, "r9")


def test_events_and_items_of_two_runs_are_not_trained_on(store: TableStore) -> None:
    copy_run(store, ("events",))
    versions = {"events": 1, "items": 1}
    check_one_run(store, versions)
    versions["items"] = store.write(frame(store.spark, C.ITEMS, all_rows("r2")["items"]), C.ITEMS, "r2")
    with pytest.raises(TableError, match=r"the events are of run r1 and the items of run r2.*spark-submit.sh events"):
        check_one_run(store, versions)
