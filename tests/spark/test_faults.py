"""What breaks at night: killed drivers, full and read-only disks. A reader sees one whole run, never a mix of two.

The reader of these tests is deltalake alone, at the versions of the latest publication.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import all_rows, copy_run, frame, write_run

from fm_spark.config import Config
from fm_spark.errors import StorageError
from fm_spark.failures import explain
from fm_spark.tables import contracts as C
from fm_spark.tables.locks import locked
from fm_spark.tables.publications import publish
from fm_spark.tables.store import TableStore
from jobs import publish as publish_job

PROJECT = Path(__file__).resolve().parents[2]
NIGHT = ("train", "evaluate", "recommend", "cluster")
View = dict[str, str]
"""What a reader finds: by table the rows of the published run, as text."""


def reader(root: Path) -> View:
    """The latest publication and the rows of its run in every table that it names, at the versions that it names."""
    rows = DeltaTable(str(root / "publications")).to_pandas()
    latest = rows.loc[rows["publication"].idxmax()]
    tables = {name: rows_of(root / name, latest["run_id"], version) for name, version in dict(latest["tables"]).items()}
    return {"run": latest["run_id"], **tables}


def rows_of(path: Path, run_id: str, version: int | None = None) -> str:
    """The rows of a run in any order, without the versions of its input; of ``vocabulary``, which only grows, all."""
    table = DeltaTable(str(path), version=version).to_pandas().drop(columns="input_versions", errors="ignore")
    own = table if path.name == "vocabulary" else table[table["run_id"] == run_id]
    return "\n".join(sorted(repr(row) for row in own.astype(object).to_dict("records")))


def all_tables(root: Path) -> View:
    """The newest rows of every table by run, but what says when and at which version: a re-run leaves the same."""
    found = {}
    for path in sorted(path for path in root.iterdir() if (path / "_delta_log").is_dir() and path.name != "locks"):
        others = ["published_at", "tables", "input_versions"]
        table = DeltaTable(str(path)).to_pandas().drop(columns=others, errors="ignore")
        found[path.name] = "\n".join(sorted(repr(row) for row in table.astype(object).to_dict("records")))
    return found


class Stopped(BaseException):
    """The driver is gone: nothing of the code under test catches this."""


Seen = Callable[[str, str], None]


@pytest.fixture
def at_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Seen], None]:
    """``at_commits(seen)`` calls ``seen(table, "before" | "after")`` around every commit of the store."""

    def install(seen: Seen) -> None:
        for name in ("_commit", "_commit_files"):
            monkeypatch.setattr(TableStore, name, watched(commits[name], seen))

    commits = {name: getattr(TableStore, name) for name in ("_commit", "_commit_files")}

    def watched(commit: Callable[..., None], seen: Seen) -> Callable[..., None]:
        def run(self: TableStore, *given: Any) -> None:
            (table,) = [one.name for one in given if isinstance(one, C.Contract)]
            seen(table, "before")
            commit(self, *given)
            seen(table, "after")

        return run

    return install


@pytest.fixture
def store(spark: SparkSession, config: Config) -> TableStore:
    """A root in which the run r1 is published."""
    store = TableStore(spark, config.tables.root)
    copy_run(store, ("events", *NIGHT))
    publish(store, "r1", "fm-r1")
    return store


def night(store: TableStore) -> None:
    """The commits of the run r2, in the order of the jobs."""
    write_run(store, "r2", NIGHT)
    publish(store, "r2", "fm-r2")


def test_a_driver_that_dies_at_any_commit_leaves_a_whole_run_and_a_second_try_ends_alike(
    store: TableStore, at_commits: Callable[[Seen], None], tmp_path: Path
) -> None:
    """What a killed driver leaves is what lies on the disk at that moment: it is looked at, and for some is copied."""
    root = Path(store.root)
    old = reader(root)
    seen: dict[tuple[str, str], View] = {}
    kept = {("fm_model", "after"): "a", ("publications", "before"): "b"}

    def look(table: str, when: str) -> None:
        seen[table, when] = reader(root)
        if (table, when) in kept:
            shutil.copytree(root, tmp_path / kept[table, when])

    at_commits(look)
    night(store)
    new, whole = reader(root), all_tables(root)
    assert (old["run"], new["run"]) == ("r1", "r2")
    assert len(seen) == 2 * 11
    last = ("publications", "after")
    assert all(view == old for point, view in seen.items() if point != last)
    assert seen[last] == new

    at_commits(lambda table, when: None)
    for copy in kept.values():
        again = TableStore(store.spark, str(tmp_path / copy))
        night(again)
        assert all_tables(tmp_path / copy) == whole
        assert reader(tmp_path / copy) == new


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exception_at_the_publishing_commit(
    store: TableStore, at_commits: Callable[[Seen], None], when: str
) -> None:
    write_run(store, "r2", NIGHT)

    def stop(table: str, now: str) -> None:
        if now == when:
            raise Stopped

    root, old = Path(store.root), reader(Path(store.root))
    at_commits(stop)
    with pytest.raises(Stopped):
        publish(store, "r2", "fm-r2")
    assert reader(root)["run"] == ("r1" if when == "before" else "r2")
    assert when == "after" or reader(root) == old
    at_commits(lambda table, when: None)
    made = publish(store, "r2", "fm-r2")
    assert (made.row.publication, made.latest, reader(root)["run"]) == (2, True, "r2")
    assert DeltaTable(str(root / "publications")).to_pandas()["run_id"].tolist().count("r2") == 1


def test_a_publish_that_is_killed_in_the_middle_is_finished_by_the_next(store: TableStore, config: Config) -> None:
    """The real job, killed with SIGKILL as soon as it puts something into publications; its lock is in nobody's way."""
    write_run(store, "r2", NIGHT)
    root = Path(store.root)
    old, others = reader(root), {k: v for k, v in all_tables(root).items() if k != "publications"}
    command = [str(PROJECT / "spark-submit.sh"), "publish", "--run-id", "r2", "--set", f"tables.root={root}"]
    files = set((root / "publications").rglob("*"))
    job = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while job.poll() is None and set((root / "publications").rglob("*")) <= files:
        time.sleep(0.01)
    assert job.poll() is None, job.communicate()
    kill_all(job.pid)
    job.wait()

    view = reader(root)
    assert view == old or view["run"] == "r2"
    named = replace(config, run=replace(config.run, id="r2", lock_wait_seconds=0.0))
    with locked(store.spark, store.root, named.run, "publish"):
        publish_job.run(store.spark, named)
    assert reader(root)["run"] == "r2"
    assert DeltaTable(str(root / "publications")).to_pandas()["publication"].tolist() in ([1, 2], [2, 1])
    assert {k: v for k, v in all_tables(root).items() if k != "publications"} == others


def kill_all(pid: int) -> None:
    """SIGKILL to a process and everything that it has started, the youngest first."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text(encoding="ascii").split():
                kill_all(int(child))
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount")
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]).returncode:
        pytest.skip("only root can mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_and_a_read_only_disk_are_one_message_and_change_nothing(spark: SparkSession, small_disk: Path) -> None:
    root = small_disk / "tables"
    root.mkdir()
    store = TableStore(spark, str(root))
    copy_run(store)
    publish(store, "r1", "fm-r1")
    old, whole = reader(root), all_tables(root)

    filler = small_disk / "filler"
    fill(filler)
    refused(store, r"cannot write .*top_n: the disk is full \(No space left on device\); free some space.*--run-id")
    assert (reader(root), all_tables(root)) == (old, whole)
    filler.unlink()

    # a read-only view of the disk above itself: the disk alone stays writable as long as Spark holds a file open
    subprocess.run(["mount", "--bind", str(small_disk), str(small_disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(small_disk)], check=True)
    refused(store, r"cannot write .*: the file system is read-only")
    refused(TableStore(spark, str(root)), r"cannot write .*: the file system is read-only")
    assert (reader(root), all_tables(root)) == (old, whole)
    subprocess.run(["umount", "--lazy", str(small_disk)], check=True)

    night(store)
    assert reader(root)["run"] == "r2"


def fill(path: Path) -> None:
    """Writes until the disk takes no more."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def refused(store: TableStore, message: str) -> None:
    rows = all_rows("r2")["top_n"]
    for given in (frame(store.spark, C.TOP_N, rows), pd.DataFrame(rows)):
        with pytest.raises(StorageError, match=message) as raised:
            store.write(given, C.TOP_N, "r2")
        assert explain(raised.value)[1] == 1
