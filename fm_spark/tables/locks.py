"""One job writes a root at a time: a lock row with a lease, renewed while the job runs and released at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession

from fm_spark.config_sections import RunConfig
from fm_spark.errors import LockError
from fm_spark.tables.contracts import LOCKS
from fm_spark.tables.files import Folder
from fm_spark.tables.lock_row import LockRow, LockTable, lock_table, new_row, until
from fm_spark.tables.storage import storage_problems

log = logging.getLogger("fm_spark.locks")

_POLL_SECONDS = 1.0
_MOST_LOST = 50  # each of them is somebody else's commit
_HELD: dict[str, RootLock] = {}
"""The locks of this process by the URI of their root."""


class RootLock:
    """The right to write the tables of a root.

    Example:
        >>> lock = RootLock(table, config.run, "train", "warehouse")        # doctest: +SKIP
        >>> lock.acquire()                                                  # doctest: +SKIP
        >>> lock.release()                                                  # doctest: +SKIP
    """

    def __init__(self, table: LockTable, settings: RunConfig, job: str, root: str) -> None:
        self._table = table
        self._settings = settings
        self._job = job
        self._root = root
        self._row: LockRow | None = None
        self._end = 0.0  # of the lease on this process' own clock, which nobody sets
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._renew, name="lock", daemon=True)

    def acquire(self) -> None:
        """Takes the lock, waiting at most ``run.lock_wait_seconds`` for a job that holds it.

        Raises:
            LockError: another job still holds it; the message says which, where and since when.
        """
        begin = time.monotonic()
        said, lost = False, 0
        while True:
            there = self._table.read()
            if there is None or there.is_free(datetime.now(UTC)):
                if self._take(there):
                    return
                lost += 1  # somebody else was faster
                if lost < _MOST_LOST:
                    continue
                raise LockError(
                    f"the lock of {self._root} was free and could not be taken {lost} times; is it writable?"
                )
            left = self._settings.lock_wait_seconds - (time.monotonic() - begin)
            if left <= 0:
                raise LockError(self._refusal(there))
            if not said:
                log.info("%s; waiting at most %.0f s for it", self._holder(there), self._settings.lock_wait_seconds)
                said = True
            time.sleep(min(_POLL_SECONDS, left))

    def tidy(self) -> None:
        """Removes what earlier jobs have left of the lock's table, when it is much."""
        self._table.tidy()

    def check(self) -> None:
        """Makes sure that the lock is still this process' own.

        Raises:
            LockError: it could not be renewed in time, so that another job may have it.
        """
        if time.monotonic() >= self._end:
            raise LockError(
                f"the lock of {self._root} could not be renewed for {self._settings.lock_lease_seconds:g} s (was the "
                "machine asleep, or the file system away?) and another job may hold it; nothing more is written, the "
                "tables keep their last good version. Give the same command again, with --run-id of this run"
            )

    def confirm(self) -> None:
        """As :meth:`check`, and asks the table; for the one commit that makes everything else visible.

        Raises:
            LockError: another job has taken the lock.
        """
        self.check()
        there = self._table.read()
        if there is None or self._row is None or there.token != self._row.token:
            self._end = 0.0
            self.check()

    def release(self) -> None:
        """Frees the lock for the next job; when that fails, the lease ends by itself."""
        self._stop.set()
        self._beat.join()
        try:
            there = self._table.read()
            if there and self._row and there.token == self._row.token:
                self._table.swap(until(there, datetime.now(UTC)))
        except Exception as error:  # the job is done or has failed for a better reason
            log.warning("the lock of %s was not released, its lease will end: %s", self._root, _first_line(error))
        self._end = 0.0

    def _take(self, there: LockRow | None) -> bool:
        row = new_row(self._settings.id, self._job, self._settings.lock_lease_seconds)
        begin = time.monotonic()
        if not self._table.swap(row):
            return False
        if there and there.expires_at > row.acquired_at:
            log.warning("took the lock over: %s, and that process is gone", self._holder(there))
        self._row, self._end = row, begin + self._settings.lock_lease_seconds
        self._beat.start()
        return True

    def _renew(self) -> None:
        lease = self._settings.lock_lease_seconds
        while not self._stop.wait(lease / 3):
            begin = time.monotonic()
            try:
                there = self._table.read()
                if there is None or self._row is None or there.token != self._row.token:
                    self._end = 0.0
                    return
                if self._table.swap(until(there, datetime.now(UTC) + timedelta(seconds=lease))):
                    self._end = begin + lease
            except Exception as error:  # a full disk or a lost mount may be back before the lease ends
                log.warning("the lock of %s could not be renewed: %s", self._root, _first_line(error))

    def _holder(self, row: LockRow) -> str:
        run = f"run {row.run_id} ({row.job})" if row.run_id else f"job {row.job}"
        return (
            f"{run} has been writing {self._root} since {row.acquired_at:%Y-%m-%d %H:%M:%S} UTC "
            f"(process {row.pid} on {row.host})"
        )

    def _refusal(self, row: LockRow) -> str:
        return (
            f"{self._holder(row)} and two jobs would mix their tables; waited {self._settings.lock_wait_seconds:g} s. "
            "Start again when it has ended, wait longer with run.lock_wait_seconds, or use another tables.root. "
            f"If that process is gone, its lock ends at {row.expires_at:%H:%M:%S} UTC"
        )


@contextmanager
def locked(spark: SparkSession, root: str, settings: RunConfig, job: str) -> Iterator[None]:
    """Holds the lock of a root while the block runs.

    Raises:
        LockError: another job holds it for longer than ``run.lock_wait_seconds``.
        TableError: the root cannot be written.
    """
    folder = Folder(spark, root)
    folder.check_writable()
    lock = RootLock(lock_table(spark, folder), settings, job, folder.shown())
    with storage_problems(f"{folder.shown()}/{LOCKS.name}"):
        lock.acquire()
        lock.tidy()
    _HELD[folder.uri()] = lock
    try:
        yield
    finally:
        del _HELD[folder.uri()]
        lock.release()


def held(root: Folder) -> RootLock | None:
    """The lock of the root that this process holds; None when it never took one, as in a notebook or a test."""
    return _HELD.get(root.uri()) if _HELD else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
