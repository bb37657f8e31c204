"""Forgetting: after it, and after maintenance, no data file holds the person; everybody else's rows are as before."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_run import all_rows, copy_run, frame

from fm_spark.config import load_config
from fm_spark.errors import TableError
from fm_spark.tables import contracts as C
from fm_spark.tables import forgetting
from fm_spark.tables.forgetting import forget
from fm_spark.tables.maintenance import maintain
from fm_spark.tables.publications import publications, publish, published, write_publication
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore

NOW_ALONE = replace(load_config().maintain, keep_publications=1, keep_hours=0.0, keep_runs=5)
PERSON, OTHERS = 10, (11, 12)


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published run, and rows of an earlier one in the tables that runs share; both know person 10."""
    store = TableStore(spark, str(tmp_path_factory.mktemp("written")))
    copy_run(store, ("events", "train", "evaluate", "recommend", "cluster"))
    rows = all_rows("r0")
    quality = {**rows["data_quality"][0], "examples": ["user 10, item 3: 1 more", "user 11, item 10.5", "110,3,4.0,10"]}
    parameters = [{**rows["fm_parameters"][0], "field": "user", "value": str(user)} for user in (PERSON, 11)]
    for place, row in enumerate(parameters):
        row["feature"] = 100 + place
    for contract, given in (
        (C.DATA_QUALITY, [quality]), (C.FM_PARAMETERS, parameters), (C.TOP_N, rows["top_n"]),
    ):  # fmt: skip
        store.write(frame(spark, contract, given), contract, "r0")
    publish(store, "r1", "fm-r1")
    reports = Path(store.root) / "reports"
    reports.mkdir()
    (reports / "r1.html").write_text('<h3>User 10 <span class="soft">4 events</span></h3>', encoding="utf-8")
    (reports / "r2.html").write_text('<h3>User 110 <span class="soft">4 events</span></h3>', encoding="utf-8")
    return Path(store.root)


@pytest.fixture
def store(spark: SparkSession, written: Path, tmp_path: Path) -> TableStore:
    """A copy of what was written."""
    shutil.copytree(written, tmp_path / "tables")
    return TableStore(spark, str(tmp_path / "tables"))


def values_of(value: Any) -> Iterator[Any]:
    """The plain values in nested ones."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from values_of(inner)
    else:
        yield value


def files_with(root: str, person: int | str) -> set[str]:
    """The data files, those of the change feed included, that hold the person's id or a text that names it."""
    word = re.compile(rf"(?<![\w.]){person}(?![\w.])")
    found = set()
    for file in Path(root).rglob("*.parquet"):
        if "_delta_log" in file.parts:
            continue
        for row in pq.ParquetFile(file).read().to_pylist():
            texts = [value for value in values_of(row) if isinstance(value, str)]
            if row.get("user_id") == person or any(word.search(text) for text in texts):
                found.add(file.relative_to(root).parts[0])
    return found


def rows_of_others(store: TableStore) -> dict[str, list[Any]]:
    """What the tables with users say about the others."""
    tables = [c for c in (C.EVENTS, C.TOP_N, C.USERS) if "user_id" in c.column_names]
    return {c.name: sorted(store.read(c).where(f"user_id <> {PERSON}").collect()) for c in tables}


def test_no_file_holds_the_person_after_maintenance(store: TableStore) -> None:
    published_too = {"events", "users", "top_n", "user_clusters"}
    held = {*published_too, "data_quality", "fm_parameters"}
    assert files_with(store.root, PERSON) == held, "the search finds the person"
    neighbour = files_with(store.root, 11)
    others, before = rows_of_others(store), published(store)

    told = forget(store, [str(PERSON)])
    assert {one.contract.name for one in told.removed} == held
    assert {one.contract.name: one.holding for one in told.removed} == {
        **{name: (before.tables[name],) for name in published_too},
        **dict.fromkeys(("data_quality", "fm_parameters"), ()),  # their published versions have no rows of r0 yet
    }
    assert told.reports == ("r1.html",)
    assert [file.name for file in (Path(store.root) / "reports").iterdir()] == ["r2.html"]

    now = published(store)
    assert (now.publication, now.run_id) == (before.publication, before.run_id)
    assert {name for name in now.tables if now.tables[name] != before.tables[name]} == {*held, "fm_model"}
    assert rows_of_others(store) == others
    quality = store.read(C.DATA_QUALITY).where("run_id = 'r0'").first()
    assert quality is not None
    assert quality["examples"] == ["user 11, item 10.5"]
    assert [r["value"] for r in store.read(C.FM_PARAMETERS).where("field = 'user'").collect()] == ["11"]
    inputs = store.read(C.FM_MODEL).select("input_versions").first()
    assert inputs is not None
    assert inputs[0]["events"] == now.tables["events"], "a job that goes on with the model reads the new events"
    assert publish(store, "r1", "fm-r1").row.tables["top_n"] == now.tables["top_n"], (
        "publishing again brings nobody back"
    )

    maintain(store, NOW_ALONE)
    assert files_with(store.root, PERSON) == set()
    assert files_with(store.root, 11) == neighbour, "the others are still there"
    assert rows_of_others(store) == others
    with pytest.raises(TableError, match="removed by maintenance"):
        store.read(C.EVENTS, before.tables["events"])
    log = "".join(file.read_text("utf-8") for file in (Path(store.root) / "top_n" / "_delta_log").glob("*.json"))
    assert not re.search(r"user_id[^,]*= *'?10\b", log), "no commit says who it was"


def test_a_person_whom_no_table_knows_changes_nothing(store: TableStore) -> None:
    before = {c.name: store.version(c) for c in C.ALL if store.exists(c)}
    for users in (["999"], ["10", "999"], ["ten"]):
        with pytest.raises(TableError, match=rf"knows user {users[-1]}; nothing was changed"):
            forget(store, users)
    told = forget(store, ["10"], dry_run=True)
    assert {one.contract.name for one in told.removed} >= {"events", "top_n"}
    assert before == {c.name: store.version(c) for c in C.ALL if store.exists(c)}


def test_a_call_that_was_cut_short_is_finished_by_the_next(store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = published(store)

    def fail(*_: object) -> int:
        raise RuntimeError("cut short")

    with monkeypatch.context() as broken:
        broken.setattr(forgetting, "write_publication", fail)
        with pytest.raises(RuntimeError):
            forget(store, ["10"])
    assert published(store) == before
    forget(store, ["10"])
    now = published(store)
    assert now.tables["events"] > before.tables["events"]
    assert store.read(C.EVENTS, now.tables["events"]).where("user_id = 10").isEmpty()


def test_ids_that_are_texts_and_events_that_moved_on(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path / "tables"))

    def write(contract: C.Contract, run: str) -> int:
        rows = frame(spark, contract, all_rows(run)[contract.name])
        named = F.when(F.col("user_id") == PERSON, F.lit("o'neill")).otherwise(F.col("user_id").cast("string"))
        return store.write(rows.withColumn("user_id", named), contract, run)

    tables = {c.name: write(c, "r1") for c in (C.EVENTS, C.TOP_N)}
    store.write(
        frame(spark, C.FM_MODEL, [{**row, "input_versions": {"events": 1}} for row in all_rows("r1")["fm_model"]]),
        C.FM_MODEL,
        "r1",
    )
    write_publication(store, Publication(1, "r1", "fm-r1", datetime(2020, 1, 1, tzinfo=UTC), tables, {}))
    write(C.EVENTS, "r2")
    told = forget(store, ["o'neill"])
    assert told.stale == ("events",), "the newest events are of a run that is not published"
    (now,) = publications(store)
    assert (now.tables["events"], now.tables["top_n"]) == (1, 2)
    assert store.read(C.EVENTS).where('user_id = "o\'neill"').isEmpty()
    assert not store.read(C.EVENTS).isEmpty()
