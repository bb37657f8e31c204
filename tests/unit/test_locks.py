"""The lock row on a local disk: who gets it, who waits, who takes it over, and what a holder that lost it may do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from fm_spark.config import load_config
from fm_spark.config_sections import RunConfig
from fm_spark.errors import LockError
from fm_spark.tables.contracts import LOCKS
from fm_spark.tables.lock_row import LocalLockTable, new_row, until
from fm_spark.tables.locks import RootLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def settings(run_id: str = "r1", wait: float = 0.0, lease: float = 60.0) -> RunConfig:
    return replace(load_config().run, id=run_id, lock_wait_seconds=wait, lock_lease_seconds=lease)


def lock(path: Path, run_id: str = "r1", wait: float = 0.0, lease: float = 60.0) -> RootLock:
    return RootLock(LocalLockTable(path), settings(run_id, wait, lease), "train", str(path.parent))


def test_the_second_job_fails_and_says_who_writes(path: Path) -> None:
    first = lock(path)
    first.acquire()
    with pytest.raises(LockError, match=rf"run r1 \(train\) has been writing .*process {os.getpid()} on .*lock_wait"):
        lock(path, "r2").acquire()
    first.check()
    first.release()
    second = lock(path, "r2")
    second.acquire()
    assert DeltaTable(str(path)).to_pandas()["run_id"].tolist() == ["r2"]
    second.release()


def test_the_second_job_waits_for_the_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fm_spark.tables.locks._POLL_SECONDS", 0.01)
    first, second = lock(path), lock(path, "r2", wait=60.0)
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    first.release()
    waiting.join(30)
    second.confirm()
    second.release()


def test_of_many_at_once_one_gets_it(path: Path) -> None:
    """Also when none of them finds a table."""
    start, winners = threading.Barrier(8), []

    def attempt(number: int) -> None:
        mine = lock(path, f"r{number}")
        start.wait()
        try:
            mine.acquire()
            winners.append(mine)
        except LockError:
            pass

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    winners[0].confirm()
    winners[0].release()


def test_a_row_that_changed_meanwhile_is_not_replaced(path: Path) -> None:
    one, other = LocalLockTable(path), LocalLockTable(path)
    assert one.read() is None
    assert one.swap(new_row("r0", "train", 60))
    assert one.read() == other.read()
    assert one.swap(new_row("r1", "train", 60))
    assert not other.swap(new_row("r2", "train", 60))
    there = other.read()
    assert there is not None
    assert there.run_id == "r1"


def test_a_lease_that_has_ended_is_taken_over_and_the_holder_may_not_go_on(path: Path) -> None:
    first, second = lock(path), lock(path, "r2")
    first.acquire()
    table = LocalLockTable(path)
    there = table.read()
    assert there is not None
    assert table.swap(until(there, datetime.now(UTC) - timedelta(seconds=1)))
    second.acquire()
    first.check()  # it has not looked yet
    with pytest.raises(LockError, match="could not be renewed"):
        first.confirm()
    with pytest.raises(LockError, match="nothing more is written"):
        first.check()
    first.release()
    second.confirm()  # which does not take the lock from the new holder
    second.release()


def test_the_lock_of_a_process_that_is_gone_is_free_at_once(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fm_spark.tables.lock_row import LocalLockTable, new_row\n"
        "table = LocalLockTable(Path(sys.argv[1])); table.read(); assert table.swap(new_row('dead', 'train', 3600))"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[2])
    there = LocalLockTable(path).read()
    assert there is not None
    assert there.expires_at > datetime.now(UTC) + timedelta(minutes=50)
    if not there.process:
        pytest.skip("no /proc: which process holds a lock cannot be known here")
    assert not replace(there, process=f"another-boot/{there.process}").holder_is_dead()
    mine = lock(path)
    mine.acquire()
    mine.release()


def test_a_long_job_keeps_its_lock(path: Path) -> None:
    mine = lock(path, lease=1.0)
    mine.acquire()
    begin = DeltaTable(str(path)).version()
    while DeltaTable(str(path)).version() < begin + 4:  # each renewal is a commit
        time.sleep(0.05)
    mine.confirm()
    mine.release()
    with pytest.raises(LockError):
        mine.check()


def test_the_row_is_as_its_contract_says(path: Path) -> None:
    mine = lock(path)
    mine.acquire()
    mine.release()
    table = DeltaTable(str(path))
    fields = {field.name: field for field in table.schema().fields}
    assert list(fields) == LOCKS.column_names
    assert all(fields[c.name].metadata["comment"] == c.comment and not fields[c.name].nullable for c in LOCKS.columns)
    assert table.metadata().description == LOCKS.comment
    assert table.metadata().configuration["fm_spark.contract"] == "locks"
    (row,) = table.to_pandas().to_dict("records")
    assert (row["lock"], row["run_id"], row["job"], row["pid"]) == ("root", "r1", "train", os.getpid())
    assert row["acquired_at"] <= row["expires_at"] <= datetime.now(UTC)


def test_old_files_of_the_lock_are_removed_when_they_are_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("r1", "r2"):
        mine = lock(path, run)
        mine.acquire()
        mine.release()
    monkeypatch.setattr("fm_spark.tables.lock_row._KEPT_HOURS", 0)
    table = LocalLockTable(path)
    table.tidy()
    assert len(list(path.glob("*.parquet"))) == 4
    monkeypatch.setattr("fm_spark.tables.lock_row._MANY_FILES", 3)
    table.tidy()
    assert len(list(path.glob("*.parquet"))) == 1
    lock(path, "r3").acquire()
