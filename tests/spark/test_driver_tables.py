"""What the driver does without Spark on a local root is what Spark does: the table made, the rows read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import all_rows, copy_run, frame

from fm_spark.config import load_config
from fm_spark.errors import TableError
from fm_spark.report.collect import collect_run
from fm_spark.tables import contracts as C
from fm_spark.tables.publications import publications, publish
from fm_spark.tables.runs import model_records
from fm_spark.tables.store import TableStore

EVERY = [contract for contract in C.ALL if contract is not C.PUBLICATIONS]


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> TableStore:
    store = TableStore(spark, str(tmp_path / "tables"))
    copy_run(store)
    return store


@pytest.mark.parametrize("contract", [C.FM_MODEL, C.TOP_N, C.CHECKPOINTS], ids=lambda one: one.name)
def test_a_table_is_made_as_spark_makes_it(
    spark: SparkSession, tmp_path: Path, elsewhere: Callable[[], None], contract: C.Contract
) -> None:
    given = all_rows("r1").get(contract.name) or [
        {
            "run_id": "r1", "slot": 0, "number": 1, "name": "a", "part": 0, "dtype": "<f4", "shape": [1],
            "payload": b"1234", "sha256": "0", "saved_at": pd.Timestamp("2020-01-01", tz="UTC"),
        }
    ]  # fmt: skip
    rows = pd.DataFrame(given, columns=contract.column_names)
    made = []
    for place in ("local", "spark"):
        if place == "spark":
            elsewhere()
        store = TableStore(spark, str(tmp_path / place))
        store.write(rows, contract, "r1")
        made.append(store)
    logs = [first_commit(tmp_path / place / contract.name) for place in ("local", "spark")]
    for action in ("metaData", "commitInfo", "protocol"):
        assert [{**log[action], **ANY.get(action, {})} for log in logs[:1]] == [
            {**log[action], **ANY.get(action, {})} for log in logs[1:]
        ], action
    ours, theirs = (DeltaTable(str(tmp_path / place / contract.name)) for place in ("local", "spark"))
    assert ours.schema() == theirs.schema()
    assert made[0].read(contract).collect() == made[1].read(contract).collect()


ANY: dict[str, dict[str, Any]] = {
    "metaData": {"id": 0, "createdTime": 0},
    "commitInfo": {"timestamp": 0, "txnId": 0, "engineInfo": 0},
}
"""What differs from table to table."""


def first_commit(table: Path) -> dict[str, dict[str, Any]]:
    """The actions of version 0 by name, what is JSON in JSON read, and a protocol as what it asks of writers."""
    lines = (table / "_delta_log" / f"{0:020d}.json").read_text("utf-8").splitlines()
    found = {name: action for line in lines for name, action in json.loads(line).items()}
    found["metaData"]["schemaString"] = json.loads(found["metaData"]["schemaString"])
    shown = found["commitInfo"]["operationParameters"]
    found["commitInfo"]["operationParameters"] = {**shown, "properties": json.loads(shown["properties"])}
    protocol = found["protocol"]
    legacy = {2: ["appendOnly", "invariants"], 3: ["appendOnly", "checkConstraints", "invariants"]}
    asked = protocol.get("writerFeatures") or legacy[protocol["minWriterVersion"]]
    found["protocol"] = {"reader": protocol["minReaderVersion"], "writer": sorted(asked)}
    return found


def test_a_table_that_is_there_is_not_made_again(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    rows = pd.DataFrame(all_rows("r1")["evaluation"], columns=C.EVALUATION.column_names)
    store.write(rows, C.EVALUATION, "r1")
    before = first_commit(tmp_path / "evaluation")
    store._place(C.EVALUATION)._make(store.read(C.EVALUATION).schema, "r2")
    assert first_commit(tmp_path / "evaluation") == before
    assert sorted(path.name for path in (tmp_path / "evaluation" / "_delta_log").glob(".*")) == []


@pytest.mark.parametrize("contract", EVERY, ids=lambda one: one.name)
def test_rows_are_those_that_spark_reads(
    store: TableStore, elsewhere: Callable[[], None], contract: C.Contract
) -> None:
    columns = contract.column_names[::-1]
    where = {"run_id": "r1"}
    key = [(name, "ascending") for name in contract.key]
    nobody = {"run_id": "nobody"}
    read = store.rows(contract), store.rows(contract, 1, columns, where), store.one(contract, "run_id")
    assert (store.rows(contract, where=nobody).num_rows, store.one(contract, "run_id", where=nobody)) == (0, None)
    assert store.count(contract, 1, where) == read[0].num_rows
    elsewhere()
    again = store.rows(contract), store.rows(contract, 1, columns, where), store.one(contract, "run_id")
    assert (store.rows(contract, where=nobody).num_rows, store.one(contract, "run_id", where=nobody)) == (0, None)
    for ours, theirs in zip(read[:2], again[:2], strict=True):
        assert ours.column_names == theirs.column_names
        assert ours.sort_by(key).to_pylist() == theirs.sort_by(key).to_pylist()
    assert read[0].num_rows == len(all_rows("r1")[contract.name])
    assert store.count(contract, 1, where) == read[0].num_rows
    assert read[2] == again[2] == "r1"


def test_a_list_of_values_asks_for_any_of_them(store: TableStore, elsewhere: Callable[[], None]) -> None:
    for _ in range(2):
        found = store.rows(C.TOP_N, columns=("user_id", "rank"), where={"user_id": [10, 12, 99], "rank": 1})
        assert sorted(found["user_id"].to_pylist()) == [10, 12]
        assert store.count(C.TOP_N, None, {"user_id": []}) == 0
        elsewhere()


def test_what_cannot_be_read_is_named(spark: SparkSession, store: TableStore) -> None:
    with pytest.raises(TableError, match=r"cannot read table evaluation at version 9 at .*evaluation"):
        store.rows(C.EVALUATION, 9)
    for file in Path(store.path(C.EVALUATION)).glob("*.parquet"):
        file.unlink()
    with pytest.raises(TableError, match=r"cannot read table evaluation at .*evaluation: .*"):
        store.rows(C.EVALUATION)
    with pytest.raises(TableError, match=r"no table top_n at .*; run ./spark-submit.sh recommend first"):
        TableStore(spark, f"{store.root}/none").rows(C.TOP_N)


def test_rows_of_one_step_replace_those_of_that_step_alone(store: TableStore) -> None:
    said = store.rows(C.DATA_QUALITY).to_pylist()
    other = {**said[0], "step": "recommend", "check": "empty_list:none"}
    rows = pd.DataFrame([other], columns=C.DATA_QUALITY.column_names)
    for count in (1, 3):
        version = store.write(rows.assign(rows=count), C.DATA_QUALITY, "r1", only={"step": "recommend"})
        found = sorted(store.rows(C.DATA_QUALITY, version).to_pylist(), key=str)
        assert found == sorted([*said, {**other, "rows": count}], key=str)
    store.write(rows.head(0), C.DATA_QUALITY, "r1", only={"step": "recommend"})
    assert sorted(store.rows(C.DATA_QUALITY).to_pylist(), key=str) == sorted(said, key=str)
    assert len(DeltaTable(store.path(C.DATA_QUALITY)).file_uris()) == 1


def test_columns_of_later_contracts_are_null_in_older_versions(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    first = replace(C.EVALUATION, columns=tuple(c for c in C.EVALUATION.columns if c.since == 1))
    rows = all_rows("r1")["evaluation"]
    store.write(frame(spark, first, rows), first, "r1")
    later = replace(first, columns=(*first.columns, C.Column("hint", "string", "new", nullable=True, since=2)))
    assert set(store.rows(later)["hint"].to_pylist()) == {None}
    assert store.count(later, where={"hint": "any"}) == 0


def test_a_publication_and_its_report_are_those_of_other_file_systems(
    store: TableStore, elsewhere: Callable[[], None]
) -> None:
    shown = load_config().report
    made = publish(store, "r1", "fm-r1")
    report = repr(collect_run(store, "r1", shown))
    elsewhere()
    assert publications(store) == [made.row]
    assert repr(collect_run(store, "r1", shown)) == report
    assert publish(store, "r1", "fm-r1").row == made.row
    assert [one.run_id for one in model_records(store)] == ["r1", "r1"]
