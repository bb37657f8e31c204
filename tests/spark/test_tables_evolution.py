"""Tables of older and newer contracts: what is added, what is recorded, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import all_rows, copy_run, frame

from fm_spark.errors import TableError
from fm_spark.tables import contracts as C
from fm_spark.tables import place as place_module
from fm_spark.tables.store import TableStore

FIRST = C.DATA_QUALITY
ADDED = (
    C.Column("severity", "int", "from 0, the user's own; 9 is worst", since=2, check=C.Check(at_least=0)),
    C.Column("hint", "string", "what to do", nullable=True, since=3),
)
THIRD = replace(FIRST, columns=(*FIRST.columns[:2], *ADDED, *FIRST.columns[2:]))


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """A store with the table of the first contract, as another process left it."""
    store = TableStore(spark, str(tmp_path / "tables"))
    copy_run(store, ("events",))
    monkeypatch.setattr(place_module, "_OURS", {})
    return store


def new_rows(run_id: str = "r2") -> list[dict[str, Any]]:
    return [{**row, "severity": i, "hint": None} for i, row in enumerate(all_rows(run_id)["data_quality"])]


def history(store: TableStore) -> list[dict[str, Any]]:
    return list(reversed(DeltaTable(store.path(FIRST)).history()))


def test_a_table_of_an_older_contract_is_brought_up_to_date_when_it_is_written(
    spark: SparkSession, store: TableStore
) -> None:
    before = store.version(FIRST)
    assert [row["severity"] for row in store.read(THIRD).collect()] == [None, None]
    assert store.version(FIRST) == before  # reading changes nothing
    store.write(frame(spark, THIRD, new_rows()), THIRD, "r2")

    rows = store.read(THIRD).orderBy("run_id", "severity").collect()
    assert [(row["run_id"], row["severity"], row["hint"]) for row in rows] == [
        ("r1", None, None), ("r1", None, None), ("r2", 0, None), ("r2", 1, None),
    ]  # fmt: skip
    assert [row["severity"] for row in store.read(THIRD, before).collect()] == [None, None]
    settings = DeltaTable(store.path(FIRST)).metadata().configuration
    assert settings["fm_spark.contract_version"] == "3"
    # Delta writes the words of a statement apart
    assert settings["delta.constraints.severity"].replace(" ", "") == "coalesce(`severity`>=0,true)"

    done = history(store)[before + 1 :]
    assert [commit["operation"] for commit in done] == [
        "ADD COLUMNS", "ADD CONSTRAINT", "SET TBLPROPERTIES", "WRITE",
    ]  # fmt: skip
    notes = [json.loads(commit["userMetadata"]) for commit in done[:-1]]
    assert all((note["migrated_by"], note["contract_version"]) == ("r2", 3) for note in notes)
    comments = {f.name: f.metadata.get("comment") for f in DeltaTable(store.path(FIRST)).schema().fields}
    assert comments["severity"] == ADDED[0].comment

    store.write(frame(spark, THIRD, new_rows()), THIRD, "r2")
    assert [commit["operation"] for commit in history(store)[before + 5 :]] == ["WRITE"]


def test_a_migration_that_was_interrupted_is_finished(
    spark: SparkSession, store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark.sql(f"ALTER TABLE delta.`{store.path(FIRST)}` ADD COLUMNS (severity int, hint string)")
    store.write(frame(spark, THIRD, new_rows()), THIRD, "r2")
    assert store.read(THIRD).where("severity IS NOT NULL").count() == 2
    assert [c["operation"] for c in history(store)].count("ADD COLUMNS") == 1


def test_new_rows_must_have_what_old_ones_lack(spark: SparkSession, store: TableStore) -> None:
    rows = [{**row, "severity": None} for row in new_rows()]
    with pytest.raises(TableError, match=r"no value in severity \(2 of 2 rows\)"):
        store.write(frame(spark, THIRD, rows), THIRD, "r2")
    assert store.version(FIRST) == 1  # and nothing was migrated


def test_a_table_of_a_newer_contract_is_refused(
    spark: SparkSession, store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(frame(spark, THIRD, new_rows()), THIRD, "r2")
    monkeypatch.setattr(place_module, "_OURS", {})
    version = DeltaTable(store.path(FIRST)).version()
    for action in (
        lambda: store.read(FIRST),
        lambda: store.write(frame(spark, FIRST, all_rows("r3")["data_quality"]), FIRST, "r3"),
    ):
        with pytest.raises(TableError, match=r"follows version 3 of the contract .* knows version 1; update fm_spark"):
            action()
    assert DeltaTable(store.path(FIRST)).version() == version


def test_a_column_that_nobody_declared_is_refused(spark: SparkSession, store: TableStore) -> None:
    spark.sql(f"ALTER TABLE delta.`{store.path(FIRST)}` ADD COLUMNS (extra int)")
    with pytest.raises(TableError, match="has extra, which its contract does not declare"):
        store.write(frame(spark, FIRST, all_rows("r3")["data_quality"]), FIRST, "r3")
    with pytest.raises(TableError, match="has extra, which its contract does not declare"):
        store.read(FIRST)
