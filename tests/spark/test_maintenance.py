"""Maintenance: what publications name stays readable, what nothing needs goes, and a dry run touches nothing."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import all_rows, frame

from fm_spark.config import load_config
from fm_spark.config_sections import MaintainConfig
from fm_spark.errors import TableError
from fm_spark.tables import contracts as C
from fm_spark.tables.maintenance import maintain
from fm_spark.tables.publications import write_publication
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore

DAY = 24 * 3_600_000  # milliseconds
RUNS = ("r1", "r2", "r3")
SETTINGS = replace(load_config().maintain, keep_publications=2, keep_hours=0.0, small_files=100)


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events and lists of three published runs, written once and copied: Spark writes slowly."""
    store = TableStore(spark, str(tmp_path_factory.mktemp("written")))
    for number, run in enumerate(RUNS, start=1):
        rows = all_rows(run)
        tables = {c.name: store.write(frame(spark, c, rows[c.name]), c, run) for c in (C.EVENTS, C.TOP_N)}
        at, inputs = datetime(2020, 1, number, tzinfo=UTC), {"events": number}
        write_publication(store, Publication(number, run, f"fm-{run}", at, tables, {}, input_versions=inputs))
    return Path(store.root)


@pytest.fixture
def store(spark: SparkSession, written: Path, tmp_path: Path) -> TableStore:
    """A copy of what was written."""
    shutil.copytree(written, tmp_path / "tables")
    return TableStore(spark, str(tmp_path / "tables"))


def contents(store: TableStore, run: int) -> dict[str, list[Any]]:
    """What a publication shows, by table: version 0 is the empty table, each run has made one more."""
    events = store.read(C.EVENTS, run).collect()
    lists = store.read(C.TOP_N, run).where(f"run_id = 'r{run}'").collect()
    return {"events": sorted(events), "top_n": sorted(lists)}


def files(store: TableStore) -> dict[str, int]:
    """Every file below the root and when it was changed."""
    return {str(file): file.stat().st_mtime_ns for file in Path(store.root).rglob("*") if file.is_file()}


def later(days: int = 1) -> int:
    """A time in the future, so that files written just now are old."""
    return round(time.time() * 1000) + days * DAY


def test_what_the_last_publications_name_stays_and_what_older_ones_name_goes(store: TableStore) -> None:
    before = {run: contents(store, run) for run in (2, 3)}
    kept = files(store)
    planned = {plan.contract.name: plan for plan in maintain(store, replace(SETTINGS, dry_run=True), later())}
    assert files(store) == kept, "a dry run changes nothing"
    assert planned["top_n"].runs == ("r1",)
    assert len(planned["events"].stays.gone) == 1
    assert planned["events"].stays.bytes > 0

    done = {plan.contract.name: plan for plan in maintain(store, SETTINGS, later())}
    assert [file.uri for file in done["events"].stays.gone] == [file.uri for file in planned["events"].stays.gone]
    assert {run: contents(store, run) for run in (2, 3)} == before
    for version in (2, 3):  # and for readers without a JVM
        assert DeltaTable(store.path(C.EVENTS), version=version).to_pyarrow_table().num_rows == len(before[2]["events"])
    with pytest.raises(TableError, match=r"version 1 of table events was removed by maintenance.*left are 2 and 3 and"):
        store.read(C.EVENTS, 1)
    assert "r1" not in {row["run_id"] for row in store.read(C.TOP_N).select("run_id").collect()}
    assert {row["run_id"] for row in store.read(C.PUBLICATIONS).collect()} == set(RUNS), "who was published is known"

    versions = {name: store.version(contract) for name, contract in (("events", C.EVENTS), ("top_n", C.TOP_N))}
    maintain(store, SETTINGS, later())
    assert versions == {"events": store.version(C.EVENTS), "top_n": store.version(C.TOP_N)}, "nothing is left to do"


def test_young_files_and_young_runs_stay(store: TableStore) -> None:
    kept = {path for path in files(store) if path.endswith(".parquet")}
    week = replace(SETTINGS, keep_publications=1, keep_hours=168.0)
    assert all(not plan.runs and not plan.stays.gone for plan in maintain(store, week))
    assert kept <= set(files(store))


def test_small_files_are_joined_and_say_the_same(store: TableStore) -> None:
    before = sorted(store.read(C.TOP_N).collect())
    maintain(store, replace(SETTINGS, keep_publications=3, small_files=3))
    assert sorted(store.read(C.TOP_N).collect()) == before
    assert len(DeltaTable(store.path(C.TOP_N)).file_uris()) == 1
    assert contents(store, 1)["top_n"], "the publication's own version is still there"


def test_without_publications_no_rows_go(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path / "tables"))
    store.write(frame(spark, C.TOP_N, all_rows("r1")["top_n"]), C.TOP_N, "r1")
    maintain(store, SETTINGS, later(days=400))
    assert not store.read(C.TOP_N).isEmpty()


def test_the_log_lasts_as_long_as_the_oldest_version_that_stays(store: TableStore) -> None:
    maintain(store, replace(SETTINGS, keep_publications=3), later(days=100))
    configuration = DeltaTable(store.path(C.EVENTS)).metadata().configuration
    days = int(configuration["delta.logRetentionDuration"].split()[1])
    assert timedelta(days=days) >= timedelta(days=130)


def test_the_defaults_keep_a_week_of_publications() -> None:
    defaults: MaintainConfig = load_config().maintain
    assert (defaults.keep_publications, defaults.keep_hours, defaults.dry_run) == (7, 168.0, False)
