"""Reads and writes the tables of the contracts: Delta, atomic, idempotent, readable without a JVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
from delta.exceptions import DeltaConcurrentModificationException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import TableError
from fm_spark.tables.add_files import all_files, commit_files, files_of_partition, files_of_run, written_meanwhile
from fm_spark.tables.checks import check_rows, explained, refusals
from fm_spark.tables.contracts import Contract
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.data_file import File, write_rows
from fm_spark.tables.driver_rows import arrow_rows, check_frame, frame_types, spark_rows
from fm_spark.tables.local import EVERYTHING, Where, without
from fm_spark.tables.locks import held
from fm_spark.tables.made import Made, unchanged, write_files
from fm_spark.tables.notes import note_of
from fm_spark.tables.place import USER_METADATA, Place
from fm_spark.tables.reader import TableReader
from fm_spark.tables.settings import settings
from fm_spark.tables.shape import FILE_BYTES, kept_rows, laid_out, shape_of, shape_rows
from fm_spark.tables.storage import storage_problems

_LARGEST_FRAME = 8 * FILE_BYTES
"""Rough bytes of rows of the driver that become files there; an array of Arrow's ends at 2 GiB."""


@dataclass(frozen=True)
class _Write:
    """What is to be written where; see :meth:`TableStore.write`."""

    place: Place
    contract: Contract
    run_id: str
    only: Where = field(default_factory=dict)
    new_keys: bool = False
    in_order: bool = False
    read: Mapping[str, int] = field(default_factory=dict)

    def note(self) -> str:
        """The commit's ``userMetadata``."""
        return note_of(self.contract.name, self.run_id, WRITTEN_BY[self.contract.name], self.read)

    def looks_for_keys(self) -> bool:
        """Whether rows that are there already have to be found and left out."""
        return self.contract.mode == "append" and not self.new_keys and self.place.exists()

    def partition(self) -> dict[str, object] | None:
        """The partition that all rows are of; empty without any, None where they may be of several."""
        known = {"run_id": self.run_id, **self.only}
        columns = self.contract.partitions
        return {name: known[name] for name in columns} if all(name in known for name in columns) else None

    def where(self) -> str:
        """The rows that are replaced, for SQL; empty where none are."""
        # a new table has nothing to replace, and looking for it is slow; but it holds unseen rows to their run
        if self.contract.mode != "by_run" or not (self.in_order or self.place.exists()):
            return ""
        return " AND ".join([_of_run(self.run_id), *(_equal(*one) for one in self.only.items())])

    def replaced(self) -> dict[str, int] | None:
        """On a local root, names and bytes of the files that hold the run's rows; None where one holds others too."""
        if not self.place.exists():
            return {}
        if self.contract.mode == "replace":
            return all_files(self.place.path)
        if self.contract.partitions:
            return files_of_partition(self.place.path, self.partition() or {"run_id": self.run_id})
        return files_of_run(self.place.path, self.run_id) if self.contract.mode == "by_run" else {}


class TableStore(TableReader):
    """The Delta tables of one root folder, a path or a URI.

    Example:
        >>> store = TableStore(spark, "warehouse")                          # doctest: +SKIP
        >>> version = store.write(scores, TOP_N, run_id)                    # doctest: +SKIP
        >>> store.read(TOP_N, version).where("user_id = 1").show()          # doctest: +SKIP
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        super().__init__(spark, root)
        self._writable = False

    def check_writable(self) -> None:
        """Makes the root when it is missing and proves, once, that it can be written.

        Raises:
            TableError: the root is a file, or cannot be created or written.
        """
        if not self._writable:
            self._root.check_writable()
            self._writable = True

    def write(
        self,
        rows: DataFrame | pd.DataFrame,
        contract: Contract,
        run_id: str,
        only: Where = EVERYTHING,
        *,
        new_keys: bool = False,
        in_order: bool = False,
        read: Mapping[str, int] | None = None,
    ) -> int:
        """Commits rows as the contract's mode says and returns the new Delta version.

        All checks come before the commit, so that an error leaves the last good version. The same rows for the same
        run id give the same table again. ``append`` leaves out rows whose key is there already.

        Args:
            rows: at least the contract's columns; others are left out; ``id`` columns are integers or strings. A
                pandas frame is checked on the driver, and on a local root becomes a file there too, without Spark.
            only: with mode ``by_run``, column -> the value that it has in all rows; the run's other rows stay.
            new_keys: with mode ``append``, the caller has made sure that the table holds none of the keys.
            in_order: the partitions hold ranges of the contract's order, each in that order, and no key twice, which
                the caller has seen to (:func:`~fm_spark.tables.in_order.ascending`): each becomes a file as it is. The
                rows are not looked at before; Delta refuses nulls and what a check forbids while it writes them. For
                tables too large to be kept and read twice.
            read: versions of other tables that the rows were made from, by name; noted in the commit.

        Raises:
            TableError: see :func:`~fm_spark.tables.checks.check_rows`; a column is missing; the root cannot be
                written; the path holds something else; the ids or types differ from those of the table.
        """
        self.check_writable()
        self._check_lock()
        asked = _Write(self._place(contract), contract, run_id, only, new_keys, in_order, read or {})
        with storage_problems(asked.place.path):
            if isinstance(rows, pd.DataFrame):
                size = check_frame(rows, contract, run_id).bytes
                if not self._write_frame(rows, size, asked):
                    self._write_rows(shape_rows(spark_rows(self.spark, rows, contract), contract), size, asked)
            elif in_order:
                self._write_rows(shape_rows(rows, contract), 0, asked)
            else:
                with kept_rows(shape_rows(rows, contract)) as kept:
                    self._write_rows(kept, check_rows(kept, contract, run_id).bytes, asked)
        return self.version(contract)

    def write_made(self, made: Made, contract: Contract, run_id: str, *, read: Mapping[str, int] | None = None) -> int:
        """As :meth:`write`, for rows that tasks make, in order and too many for Spark's writer to be quick.

        On a local root the tasks write the files; elsewhere, and where a file holds the run's rows beside those of
        another, the rows go through Spark.

        Raises:
            TableError: as :meth:`write`; also when rows do not ascend by the contract's order.
        """
        self.check_writable()
        asked = _Write(self._place(contract), contract, run_id, read=read or {})
        place = asked.place
        replaced = asked.replaced() if place.local else None
        if replaced is None or place.local is None:
            return self.write(made.frame(), contract, run_id, in_order=True, read=read)
        shape = shape_of(made.types(), contract)
        self._check_lock()
        with storage_problems(place.path):
            place.prepare(shape, run_id)
            with refusals():
                files = write_files(made, contract, run_id, shape, place.local)
            self._check_lock()  # making the rows may have taken long
            self._commit_files(files, replaced, contract, asked.note())
        return self.version(contract)

    def remove_run(self, contract: Contract, run_id: str) -> None:
        """Deletes the rows of a run, in one commit.

        Raises:
            TableError: the table is missing or not ours.
        """
        asked = _Write(self._there(contract), contract, run_id)
        self._check_lock()
        with storage_problems(asked.place.path):
            replaced = asked.replaced() if asked.place.local else None
            if replaced is None:
                with settings(self.spark, {USER_METADATA: asked.note()}):
                    self.spark.sql(f"DELETE FROM {asked.place.identifier} WHERE {_of_run(run_id)}")
            elif replaced:
                self._commit_files([], replaced, contract, asked.note())

    def sweep(self, contract: Contract) -> None:
        """Deletes the files that no version has needed for the contract's ``kept_hours``."""
        place = self._there(contract)
        # Delta lists the folders in so many tasks, 10,000 unless told otherwise
        with settings(self.spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "8"}):
            self.spark.sql(f"VACUUM {place.identifier}")

    def confirm_lock(self) -> None:
        """Asks the lock's table whether this process still holds it; nothing to ask when it never took one.

        Raises:
            LockError: another job may have it.
        """
        lock = held(self._root)
        if lock is not None:
            lock.confirm()

    def _check_lock(self) -> None:
        lock = held(self._root)
        if lock is not None:
            lock.check()

    def _write_frame(self, frame: pd.DataFrame, size: int, asked: _Write) -> bool:
        """Writes checked rows of the driver to files, where that can be done; whether it was.

        Args:
            size: rough bytes of the rows.
        """
        place, contract = asked.place, asked.contract
        if place.local is None or size > _LARGEST_FRAME or asked.looks_for_keys() or asked.partition() is None:
            return False
        replaced = asked.replaced()
        if replaced is None:
            return False
        types = frame_types(frame, contract)
        rows = arrow_rows(frame, types)
        place.prepare(types, asked.run_id)
        if asked.only and replaced and not contract.partitions:
            of_run = self.rows(contract, where={"run_id": asked.run_id})
            rows = pa.concat_tables([without(of_run, asked.only).cast(rows.schema), rows])
        files = write_rows(rows, contract, place.local, max(1, -(-size // FILE_BYTES)))
        self._check_lock()
        self._commit_files(files, replaced, contract, asked.note(), asked.partition() or {})
        return True

    def _write_rows(self, rows: DataFrame, size: int, asked: _Write) -> None:
        """Has Spark write rows in the contract's shape, which are checked unless they come in order.

        Args:
            size: rough bytes of the rows.
        """
        place, contract, run_id = asked.place, asked.contract, asked.run_id
        if asked.looks_for_keys():
            place.follow(rows.schema, run_id)
            rows = self._unknown(rows, contract)
            if rows.isEmpty():
                return
        where = asked.where()
        self._check_lock()  # making the rows may have taken long
        place.prepare(rows.schema, run_id)
        if asked.in_order:
            with explained(rows, contract, run_id):
                self._commit(rows, place, contract, asked.note(), where)
            return
        ordered = laid_out(rows, contract, size)
        replaced = None if place.local is None or contract.partitions or asked.only else asked.replaced()
        if replaced is None or place.local is None:
            self._commit(ordered, place, contract, asked.note(), where)
            return
        with refusals():
            files = write_files(unchanged(ordered), contract, run_id, rows.schema, place.local)
        self._check_lock()
        self._commit_files(files, replaced, contract, asked.note())

    def _unknown(self, rows: DataFrame, contract: Contract) -> DataFrame:
        """The rows whose key is not in the table; a known key with other values is an error."""
        rest = [c for c in contract.column_names if c not in contract.key and c != "run_id"]
        there = self.read(contract).select(*contract.key, F.struct(*rest).alias("_there"))
        both = rows.join(there, on=list(contract.key), how="left")
        changed = both.where(F.col("_there").isNotNull() & (F.col("_there") != F.struct(*rest)))
        example = changed.select(*contract.key, *rest, "_there").limit(1).collect()
        if example:
            raise TableError(
                f"table {contract.name} at {self.path(contract)} only grows, and {example[0].asDict(recursive=True)} "
                "would change a row of it (_there); use another tables.root or remove the old tables"
            )
        # the metadata of the columns (their comments) does not survive the join
        return shape_rows(both.where(F.col("_there").isNull()), contract)

    def _commit_files(
        self,
        files: Sequence[File],
        replaced: Mapping[str, int],
        contract: Contract,
        note: str,
        partition: Mapping[str, object] = EVERYTHING,
    ) -> None:
        """Every commit of files on a local root, as :meth:`_commit` is every one of Spark's."""
        commit_files(self.path(contract), files, replaced, note, partition)

    def _commit(self, rows: DataFrame, place: Place, contract: Contract, note: str, where: str) -> None:
        try:
            # an option and not a setting of the session: several tables are written side by side
            writer = rows.write.format("delta").option("userMetadata", note)
            if where:
                writer = writer.option("replaceWhere", where)
            replaces = where or contract.mode == "replace"
            writer.mode("overwrite" if replaces else "append").save(place.uri)
        except DeltaConcurrentModificationException as error:
            raise written_meanwhile(place.path) from error


def _of_run(run_id: str) -> str:
    return _equal("run_id", run_id)


def _equal(column: str, value: object) -> str:
    """A condition of this program's own, for SQL."""
    if not isinstance(value, str):
        return f"`{column}` = {value}"
    literal = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"`{column}` = '{literal}'"
