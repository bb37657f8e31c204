"""The row of ``locks``: what it says, and the two ways to change it from one known state to the next.

A local root is written by delta-rs, whose commits on a local disk are atomic between processes (Delta for Spark looks
and then renames) and cost milliseconds instead of Spark jobs. Any other file system is written by Spark, which knows
its credentials.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pyarrow as pa
from delta import DeltaTable as SparkDeltaTable
from delta.exceptions import DeltaConcurrentModificationException
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.schema import PrimitiveType
from pyspark.errors import AnalysisException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from fm_spark.tables.contracts import LOCKS
from fm_spark.tables.evolution import CONTRACT_PROPERTY
from fm_spark.tables.files import Folder

_ROOT = "root"
_ROOM = 64 * 1024  # bytes; a commit takes about 6 kB
_MANY_FILES, _KEPT_HOURS = 200, LOCKS.kept_hours
_TYPES = {"string": "string", "bigint": "long", "timestamp": "timestamp"}


@dataclass(frozen=True)
class LockRow:
    """The row of ``locks``; the fields are its columns."""

    lock: str
    run_id: str
    job: str
    host: str
    pid: int
    process: str
    token: str
    acquired_at: datetime
    expires_at: datetime

    def is_free(self, now: datetime) -> bool:
        """Whether the lease has ended or its holder is known to be dead."""
        return self.expires_at <= now or self.holder_is_dead()

    def holder_is_dead(self) -> bool:
        """Whether the holder was a process of this machine and is gone; False when that cannot be known."""
        own = _process(os.getpid())
        if not self.process or not own or _machine(self.process) != _machine(own):
            return False
        return _process(self.pid) != self.process


def new_row(run_id: str, job: str, lease_seconds: float) -> LockRow:
    """The row by which this process takes the lock now."""
    now = datetime.now(UTC)
    return LockRow(
        lock=_ROOT,
        run_id=run_id,
        job=job,
        host=socket.gethostname(),
        pid=os.getpid(),
        process=_process(os.getpid()),
        token=uuid4().hex,
        acquired_at=now,
        expires_at=now + timedelta(seconds=lease_seconds),
    )


def until(row: LockRow, expires_at: datetime) -> LockRow:
    """The same hold of the lock with another end."""
    return replace(row, expires_at=expires_at)


class LockTable(Protocol):
    """Reads and changes the row."""

    def read(self) -> LockRow | None:
        """The row as it is; None when the lock was never taken."""

    def swap(self, row: LockRow) -> bool:
        """Puts ``row`` in the place of what :meth:`read` returned last; False when that is not there any more."""

    def tidy(self) -> None:
        """Removes files that nothing needs, when there are many; to be called by who holds the lock."""


def lock_table(spark: SparkSession, root: Folder) -> LockTable:
    """The table ``locks`` under the root."""
    local = root.local()
    if local is not None:
        return LocalLockTable(local / LOCKS.name)
    return SparkLockTable(spark, f"{root.uri().rstrip('/')}/{LOCKS.name}")


class LocalLockTable:
    """The row on a local disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: DeltaTable | None = None

    def read(self) -> LockRow | None:
        try:
            self._seen = DeltaTable(str(self._path))
        except TableNotFoundError:
            return None
        rows = self._seen.to_pyarrow_table().to_pylist()
        return LockRow(**rows[0]) if rows else None

    def swap(self, row: LockRow) -> bool:
        # no second try at another version: the row was made for the state that was read
        properties = CommitProperties(max_commit_retries=0, custom_metadata={"userMetadata": row.run_id})
        schema = pa.schema(
            [pa.field(c.name, _arrow(c.type), nullable=False, metadata={"comment": c.comment}) for c in LOCKS.columns]
        )
        rows = pa.Table.from_pylist([asdict(row)], schema=schema)
        if shutil.disk_usage(self._path.parent).free < _ROOM:
            # delta-rs would notice too, and say so with the stack traces of its threads
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        try:
            seen = self._seen or self._create()
            if self._seen is None and seen.to_pyarrow_table().num_rows:
                return False  # somebody else made the table and has put his row into it
            write_deltalake(seen, rows, mode="overwrite", commit_properties=properties)
        except CommitFailedError:
            return False
        return True

    def tidy(self) -> None:
        if len(os.listdir(self._path)) > _MANY_FILES:
            table = DeltaTable(str(self._path))
            table.vacuum(_KEPT_HOURS, dry_run=False, enforce_retention_duration=False)

    def _create(self) -> DeltaTable:
        fields = [
            Field(c.name, PrimitiveType(_TYPES[c.type]), nullable=False, metadata={"comment": c.comment})
            for c in LOCKS.columns
        ]
        kept = {
            "delta.logRetentionDuration": "interval 1 days",
            "delta.deletedFileRetentionDuration": f"interval {LOCKS.kept_hours} hours",
        }
        self._path.mkdir(parents=True, exist_ok=True)
        # when two create it at once, one of them does; the first row decides who has the lock
        made = DeltaTable.create(
            str(self._path), Schema(fields), mode="ignore", description=LOCKS.comment, configuration=kept
        )
        # creation takes Delta's own properties only
        made.alter.set_table_properties({CONTRACT_PROPERTY: LOCKS.name}, raise_if_not_exists=False)
        return made


class SparkLockTable:
    """The row on any file system that Spark knows; compare-and-swap is an update of the row that was read."""

    def __init__(self, spark: SparkSession, uri: str) -> None:
        self._spark = spark
        self._uri = uri
        self._seen: LockRow | None = None

    def read(self) -> LockRow | None:
        if not Folder(self._spark, f"{self._uri}/_delta_log").exists():
            self._seen = None
            return None
        # through Arrow or not, Spark's timestamps come back in the machine's zone
        micros = [F.unix_micros(name).alias(name) for name in ("acquired_at", "expires_at")]
        others = [name for name in LOCKS.column_names if name not in ("acquired_at", "expires_at")]
        row = self._spark.read.format("delta").load(self._uri).select(*others, *micros).first()
        self._seen = None if row is None else LockRow(**_with_times(row.asDict()))
        return self._seen

    def swap(self, row: LockRow) -> bool:
        try:
            if self._seen is None:
                self._insert(row)
            else:
                there = F.col("token") == F.lit(self._seen.token)
                same = there & (F.unix_micros("expires_at") == F.lit(_micros(self._seen.expires_at)))
                values: dict[str, str | Column] = {name: F.lit(value) for name, value in asdict(row).items()}
                SparkDeltaTable.forPath(self._spark, self._uri).update(same, values)
        except (DeltaConcurrentModificationException, AnalysisException):
            return False
        return self.read() == row

    def tidy(self) -> None:
        """Nothing: maintenance does it, as for the other tables."""

    def _insert(self, row: LockRow) -> None:
        schema = ", ".join(f"`{c.name}` {c.type}" for c in LOCKS.columns)
        rows = self._spark.createDataFrame([tuple(asdict(row).values())], schema)
        quoted = self._uri.replace("`", "``")
        # fails when the table was made meanwhile
        made = rows.coalesce(1).writeTo(f"delta.`{quoted}`").using("delta")
        made.tableProperty(CONTRACT_PROPERTY, LOCKS.name).tableProperty("comment", LOCKS.comment).create()


def _arrow(type_: str) -> pa.DataType:
    return {"string": pa.string(), "bigint": pa.int64(), "timestamp": pa.timestamp("us", tz="UTC")}[type_]


def _micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _with_times(values: dict[str, Any]) -> dict[str, Any]:
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    times = {name: begin + timedelta(microseconds=values[name]) for name in ("acquired_at", "expires_at")}
    return {**values, **times}


def _process(pid: int) -> str:
    """What no other process is: the machine's boot, the namespace of its ids, id and start; "" when it is gone.

    Also "" on systems without ``/proc``.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.stat("/proc/self/ns/pid").st_ino
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # the second field, the command, may hold anything; after its last ")" come the state and, 19 later, the start
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot}/{space}/{pid}/{rest[18]}"


def _machine(process: str) -> list[str]:
    return process.split("/")[:2]
