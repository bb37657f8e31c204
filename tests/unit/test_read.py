"""Readers without a JVM see one whole publication, and learn in words why they see none."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from delta_tables import MINUTE, publish, write, write_lists
from deltalake import DeltaTable

import fm_spark.read
from fm_spark.errors import TableError
from fm_spark.submit import PROJECT
from fm_spark.tables import contracts as C
from fm_spark.tables.handle import Handle

CLUSTERS = {"title": "T", "distance": 0.5, "is_medoid": False}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Runs r1 and r2 are published; r3 has written its lists and is not."""
    for run, items in (("r1", [7, 8, 9]), ("r2", [8, 7])):
        of_run = {"run_id": run, "model_version": f"fm-{run}"}
        tables = {"top_n": write_lists(tmp_path, run, {1: items, 2: [9]})}
        tables["top_n"] = write_lists(tmp_path, run, {1: [5]}, list_name="comedies")
        tables["item_clusters"] = write(
            tmp_path, C.ITEM_CLUSTERS, [{**of_run, **CLUSTERS, "item_id": 7, "cluster_id": len(items)}]
        )
        models = [{"purpose": "publish", **of_run}, {**of_run, "purpose": "evaluation", "model_version": "other"}]
        tables["fm_model"] = write(tmp_path, C.FM_MODEL, models)
        tables["items"] = write(tmp_path, C.ITEMS, [{"item_id": 7, "title": f"Seven in {run}", "run_id": run}])
        publish(tmp_path, run, int(run[1:]), tables)
    write_lists(tmp_path, "r3", {1: [1, 2]})
    write(tmp_path, C.ITEMS, [{"item_id": 7, "title": "Seven in r3", "run_id": "r3"}])
    return tmp_path


def items_of(rows: pa.Table) -> list[int]:
    return rows["item_id"].to_pylist()


def test_the_latest_publication_is_read_whole_while_another_run_writes(root: Path) -> None:
    run = fm_spark.read.open(root)
    assert (run.publication.run_id, run.publication.metrics) == ("r2", {"fm.ndcg_at_10": 0.2})
    assert run.publication.gates[0].gate == "users"
    assert items_of(run.top_n(1)) == [8, 7]
    assert run.top_n(1)["rank"].to_pylist() == [1, 2]
    assert items_of(run.top_n(1, list_name="comedies")) == [5]
    assert items_of(run.top_n(1, list_name=None)) == [5, 8, 7]
    assert run.top_n().num_rows == 3
    assert run.cluster(7)["cluster_id"].to_pylist() == [2]
    assert run.items_of_cluster(2)["item_id"].to_pylist() == [7]
    assert run.items(7)["title"].to_pylist() == ["Seven in r2"]
    assert run.model().select(["model_version", "purpose"]).to_pylist() == [
        {"model_version": "fm-r2", "purpose": "publish"}
    ]
    assert run.table("fm_model").num_rows == 2
    assert set(run.table("top_n")["run_id"].to_pylist()) == {"r2"}
    assert run.top_n(1).to_pandas()["title"].tolist() == ["Item 8", "Item 7"]


def test_neighbours_and_popular_items_come_best_first(tmp_path: Path) -> None:
    of_run = {"run_id": "r1", "model_version": "fm-r1"}
    near = [{"item_id": item, "rank": rank, "similar_item_id": 10 * item + rank} for rank in (2, 1) for item in (3, 4)]
    best = [
        {"kind": kind, "genre": genre, "rank": rank, "item_id": len(kind + genre) + rank}
        for rank in (2, 1)
        for kind, genre in (("count", ""), ("count", "Drama"), ("trending", ""))
    ]
    tables = {
        "similar_items": write(tmp_path, C.SIMILAR_ITEMS, [{**of_run, **row} for row in near]),
        "popular_items": write(tmp_path, C.POPULAR_ITEMS, [{**of_run, **row} for row in best]),
    }
    publish(tmp_path, "r1", 1, tables)
    run = fm_spark.read.open(tmp_path)
    assert run.similar(3)["similar_item_id"].to_pylist() == [31, 32]
    assert items_of(run.popular()) == [6, 7]
    assert items_of(run.popular(genre="Drama")) == [11, 12]
    assert items_of(run.popular("trending")) == [9, 10]


def test_a_run_id_or_a_time_opens_an_earlier_publication(root: Path) -> None:
    first = MINUTE + timedelta(hours=1)
    for which in ("r1", first, first.isoformat(), (first + timedelta(minutes=59)).isoformat(), "2026-11-23 06:30"):
        run = fm_spark.read.open(root, which)
        assert (run.publication.run_id, items_of(run.top_n(1))) == ("r1", [7, 8, 9])
        assert run.items(7)["title"].to_pylist() == ["Seven in r1"]
    assert fm_spark.read.open(root, "2026-11-23 07:00").publication.run_id == "r2"
    assert [one.run_id for one in fm_spark.read.publications(root)] == ["r1", "r2"]


def test_a_rollback_is_the_latest_whatever_its_run(root: Path) -> None:
    run = fm_spark.read.open(root)
    assert run.refresh() is run
    tables = fm_spark.read.open(root, "r1").publication.tables
    publish(root, "r1", 3, tables, rolled_back_from="r2")
    assert run.publication.run_id == "r2"
    newer = run.refresh()
    assert (newer.publication.publication, newer.publication.rolled_back_from) == (3, "r2")
    assert items_of(newer.top_n(1)) == [7, 8, 9]
    assert items_of(run.top_n(1)) == [8, 7]


def test_rows_come_as_a_table_or_in_batches_with_columns_and_conditions(root: Path) -> None:
    run = fm_spark.read.open(root)
    found = run.table("top_n", columns=["user_id", "rank"], where=pc.field("item_id") == 9)
    assert found.to_pylist() == [{"user_id": 2, "rank": 1}]
    batches = run.batches("top_n", columns=["item_id"])
    assert sorted(items_of(batches.read_all())) == [5, 7, 8, 9]
    with pytest.raises(TableError, match=r"cannot read .*top_n at version \d+: No match for FieldRef.Name\(rnk\)"):
        run.table("top_n", where=pc.field("rnk") == 1)
    with pytest.raises(TableError, match=r"top_n has no column rnk; it has run_id, "):
        run.table("top_n", columns=["rnk"])
    with pytest.raises(TableError, match=r"top_n has no column rnk"):
        run.batches("top_n", columns=["rnk"])


def test_an_unknown_user_or_item_has_no_rows_and_an_impossible_one_is_an_error(root: Path) -> None:
    run = fm_spark.read.open(root)
    assert run.top_n(999).num_rows == run.top_n(1, list_name="none").num_rows == run.cluster(999).num_rows == 0
    assert run.top_n(999).schema == run.top_n(1).schema
    for impossible in ("1' or '1' = '1", 2**70, 1.5):
        with pytest.raises(TableError, match=r"user_id of table top_n is int64; .* is not"):
            run.top_n(impossible)  # type: ignore[arg-type]


def test_text_ids_are_values_and_never_part_of_a_query(tmp_path: Path) -> None:
    odd = "O'Neil\" \\ -- ; DROP"
    version = write_lists(tmp_path, "r1", {odd: ["x"], "1": ["y"]})
    publish(tmp_path, "r1", 1, {"top_n": version})
    run = fm_spark.read.open(tmp_path)
    assert items_of(run.top_n(odd)) == ["x"]
    assert run.top_n("x' or '1' = '1").num_rows == 0
    with pytest.raises(TableError, match="user_id of table top_n is string; 1 "):
        run.top_n(1)


def test_what_cannot_be_opened_says_why_and_what_to_do(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"there is no folder .*nowhere; name the tables.root"):
        fm_spark.read.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match=r"nothing is published under .*empty .*run ./spark-submit.sh publish first"):
        fm_spark.read.open(tmp_path / "empty")
    with pytest.raises(TableError, match=r"Unknown scheme: nope"):
        fm_spark.read.open("nope://bucket/warehouse")
    with pytest.raises(TableError, match=r"no publication of run r3 .*r2 \(2026-11-23 07:00:00 UTC\), r1 \("):
        fm_spark.read.open(root, "r3")
    with pytest.raises(TableError, match=r"nothing was published .* at 2020-01-01T00:00:00\+00:00; published are r2"):
        fm_spark.read.open(root, "2020-01-01")
    with pytest.raises(TableError, match=r"run r2 has published no table similar_items; it has fm_model, "):
        fm_spark.read.open(root).similar(7)


def test_a_version_that_is_gone_says_so(root: Path) -> None:
    run = fm_spark.read.open(root, "r1")
    items = DeltaTable(root / "items")
    items.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(TableError, match=r"items at version 0: .*vacuumed away, open a newer publication"):
        run.items(7)
    with pytest.raises(TableError, match=r"items at version 0: .*vacuumed away, open a newer publication"):
        run.batches("items").read_all()
    publish(root, "r9", 9, {"items": 77})
    with pytest.raises(TableError, match=r"items at version 77.*; run r9 has published version 77 of items"):
        fm_spark.read.open(root).items()


@pytest.mark.parametrize("without", [["list_name"], []])
def test_lists_of_before_there_were_named_ones_are_the_default(tmp_path: Path, without: list[str]) -> None:
    row = {"run_id": "r1", "model_version": "fm-r1", "user_id": 1, "rank": 1, "item_id": 4}
    publish(tmp_path, "r1", 1, {"top_n": write(tmp_path, C.TOP_N, [row], without=without)})
    publish(tmp_path, "r2", 2, {"top_n": write_lists(tmp_path, "r2", {1: [5]})})
    assert items_of(fm_spark.read.open(tmp_path, "r1").top_n(1)) == [4]
    changes = fm_spark.read.open(tmp_path).changes(since="r1")
    assert [row["list_name"] for row in changes.to_pylist()] == ["default", "default"]


def test_a_list_is_found_by_the_files_and_row_groups_that_hold_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fm_spark.read.open(root)
    run.top_n(1)
    handle = run._handle("top_n")
    assert handle._dataset is not None
    own = run._own("top_n", handle, pc.field("list_name") == "comedies")
    assert len(list(handle._dataset.get_fragments())) == 4
    assert len(list(handle._dataset.get_fragments(own))) == 1
    # the second look-up opens nothing again
    monkeypatch.setattr("fm_spark.read.snapshot.Handle", None)
    assert items_of(run.top_n(2)) == [9]


def test_a_table_that_pyarrow_cannot_follow_is_read_by_deltalake(root: Path) -> None:
    version = fm_spark.read.open(root).publication.tables["top_n"]
    usual, other = Handle(f"{root}/top_n", version), Handle(f"{root}/top_n", version)
    other.__dict__["_dataset"] = None  # as with deletion vectors, which Delta's DELETE may leave
    for columns, where in ((["item_id", "rank"], pc.field("user_id") == 1), (["user_id"], None)):
        expected = usual.read(columns, where)
        by = [(name, "ascending") for name in columns]
        assert other.read(columns, where).sort_by(by) == expected.sort_by(by)
        assert other.batches(columns, where).read_all().sort_by(by) == expected.sort_by(by)
    assert other.read(None, pc.field("user_id") == 1).schema.names == usual.schema.names


def test_reading_loads_neither_spark_nor_java(root: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('pyspark', 'py4j', 'delta'): sys.modules[name] = None\n"
        "import fm_spark.read\n"
        f"print(fm_spark.read.open({str(root)!r}).top_n(1)['item_id'].to_pylist())\n"
        # they take longer to load than a list to read
        "print([name for name in ('pandas', 'pyarrow.dataset') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env={"PATH": "", "JAVA_HOME": ""}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[8, 7]\n[]\n", "")
