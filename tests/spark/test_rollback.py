"""Gates before a publication, and the way back to an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import copy_run, write_run

from fm_spark import __version__
from fm_spark.config import Config
from fm_spark.errors import ConfigError, GateError, TableError
from fm_spark.tables import contracts as C
from fm_spark.tables.lock_row import SparkLockTable, new_row, until
from fm_spark.tables.notes import git_commit
from fm_spark.tables.publications import publish, published
from fm_spark.tables.published import Gate
from fm_spark.tables.store import TableStore
from jobs import history, rollback


@pytest.fixture
def store(spark: SparkSession, config: Config) -> TableStore:
    return TableStore(spark, config.tables.root)


def of_run(config: Config, run_id: str) -> Config:
    return replace(config, run=replace(config.run, id=run_id))


def test_gates_keep_a_run_from_readers_or_are_noted(store: TableStore, config: Config) -> None:
    copy_run(store)
    strict = replace(config.publish, min_metric=0.9, min_users=1.0)
    with pytest.raises(GateError, match=r"run r1 is not published.*min_metric: 0.5 is below 0.9; nothing is published"):
        publish(store, "r1", "fm-r1", strict)
    assert not store.exists(C.PUBLICATIONS)

    made = publish(store, "r1", "fm-r1", replace(strict, on_failed_gate="warn"))
    gates = [
        Gate("min_metric", 0.5, 0.9, False),
        Gate("min_users", 1.0, 1.0, True),
        Gate("tables_with_rows", 8.0, 8.0, True),
    ]
    assert published(store).gates == made.row.gates == gates

    profiles = store.read(C.CLUSTER_PROFILES)
    store.write(profiles.where("cluster_id < 0"), C.CLUSTER_PROFILES, "r1")
    with pytest.raises(GateError, match=r"tables_with_rows: 7 is below 8; readers stay with run r1\."):
        publish(store, "r1", "fm-r1", config.publish)
    assert published(store) == made.row


def test_rollback_publishes_an_earlier_run_again_and_touches_nothing_else(
    store: TableStore, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    history.run(store.spark, config)
    assert "Nothing is published yet" in capsys.readouterr().out
    first = copy_run(store)
    publish(store, "r1", "fm-r1")
    second = write_run(store, "r2", ("train", "evaluate", "recommend", "cluster"))
    publish(store, "r2", "fm-r2")

    with pytest.raises(ConfigError, match="--to RUN_ID"):
        rollback.run(store.spark, config)
    with pytest.raises(TableError, match=r"run r9 was never published.*published runs: r2, r1"):
        rollback.run(store.spark, of_run(config, "r9"))
    assert rollback.run(store.spark, of_run(config, "r2")).row.publication == 2  # it is the latest already

    before = datetime.now(UTC)
    made = rollback.run(store.spark, of_run(config, "r1"))
    assert (made.row.publication, made.row.run_id, made.row.rolled_back_from) == (3, "r1", "r2")
    assert made.row.tables == first
    assert before - timedelta(seconds=1) < made.row.published_at
    assert published(store) == made.row
    assert rollback.run(store.spark, of_run(config, "r1")) == made
    assert {name: store.version(c) for c in C.ALL if (name := c.name) in second} == second
    rows = DeltaTable(store.path(C.PUBLICATIONS)).to_pandas().sort_values("publication")
    assert rows["run_id"].tolist() == ["r1", "r2", "r1"]
    # the run that was rolled back does not come back by itself, and the next run does not care
    assert not publish(store, "r2", "fm-r2").latest
    assert published(store) == made.row

    lines = history.run(store.spark, config)
    assert [line.publication for line in lines] == [1, 2, 3]
    out = capsys.readouterr().out
    assert all(words in out for words in ("Runs in", "(latest)", "rolled back", "0.5000"))


def test_rollback_is_refused_when_files_are_gone(store: TableStore, config: Config) -> None:
    copy_run(store)
    publish(store, "r1", "fm-r1")
    write_run(store, "r2", ("train", "evaluate", "recommend", "cluster"))
    publish(store, "r2", "fm-r2")
    path = Path(store.path(C.TOP_N))
    (file,) = DeltaTable(str(path), version=1).file_uris()
    Path(file).unlink()
    with pytest.raises(TableError, match=r"run r1 cannot be published again: top_n at version 1 .*--run-id r1"):
        rollback.run(store.spark, of_run(config, "r1"))
    assert published(store).run_id == "r2"


def test_a_commit_says_which_run_job_code_and_configuration_made_it(store: TableStore) -> None:
    copy_run(store)
    commit, _made_empty = DeltaTable(store.path(C.TOP_N)).history()
    note = json.loads(commit["userMetadata"])
    said = {"run_id": "r1", "job": "recommend", "table": "top_n", "fm_spark": __version__, "config": ""}
    assert note == {**said, "git": git_commit()}


def test_the_lock_row_on_a_file_system_that_only_spark_knows(spark: SparkSession, tmp_path: Path) -> None:
    uri = (tmp_path / "locks").as_uri()
    one, other = SparkLockTable(spark, uri), SparkLockTable(spark, uri)
    assert one.read() is other.read() is None
    row = new_row("r1", "train", 60)
    assert one.swap(row)
    assert not other.swap(new_row("r2", "train", 60))  # the table was made meanwhile
    assert other.read() == row
    renewed = until(row, row.expires_at + timedelta(seconds=60))
    assert one.swap(renewed)
    assert not other.swap(new_row("r2", "train", 60))
    assert one.read() == other.read() == renewed
