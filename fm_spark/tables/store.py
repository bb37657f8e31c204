"""Reads and writes the tables of the contracts: Delta, atomic, idempotent, readable without a JVM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from delta.exceptions import DeltaConcurrentModificationException
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark import __version__
from fm_spark.errors import TableError
from fm_spark.tables.add_files import all_files, commit_files, files_of_run
from fm_spark.tables.checks import check_rows, explained, refusals
from fm_spark.tables.commits import Commit, commits_newest_first, newest_version, read_commit, version_of_run
from fm_spark.tables.contracts import Contract
from fm_spark.tables.driver_rows import arrow_rows, check_frame, spark_rows
from fm_spark.tables.evolution import (
    CONTRACT_PROPERTY,
    create,
    migrate,
    refuse_newer,
    refuse_undeclared,
    version_of,
    with_later_columns,
)
from fm_spark.tables.files import Folder
from fm_spark.tables.locks import held
from fm_spark.tables.made import File, Made, write_file, write_files
from fm_spark.tables.notes import note_of
from fm_spark.tables.readable import check_readable
from fm_spark.tables.settings import settings
from fm_spark.tables.shape import FILE_BYTES, kept_rows, laid_out, shape_rows
from fm_spark.tables.storage import storage_problems

WRITTEN_BY = {
    "events": "events",
    "vocabulary": "events",
    "items": "events",
    "users": "events",
    "data_quality": "events",
    "fm_parameters": "train",
    "fm_model": "train",
    "training_history": "train",
    "checkpoints": "train",
    "evaluation": "evaluate",
    "top_n": "recommend",
    "item_clusters": "cluster",
    "cluster_profiles": "cluster",
    "cluster_changes": "cluster",
    "user_clusters": "cluster",
    "user_cluster_profiles": "cluster",
    "popular_items": "popular",
    "similar_items": "similar",
    "similar_quality": "similar",
    "item_audience": "audience",
    "publications": "publish",
}
"""The job that writes each table; named in the message when the table is missing."""

# version of the contract of each table whose owner has been checked in this process: every job makes a store of its
# own, and asking costs a query
_OURS: dict[str, int] = {}
_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


class TableStore:
    """The Delta tables of one root folder, a path or a URI.

    Example:
        >>> store = TableStore(spark, "warehouse")                          # doctest: +SKIP
        >>> version = store.write(scores, TOP_N, run_id)                    # doctest: +SKIP
        >>> store.read(TOP_N, version).where("user_id = 1").show()          # doctest: +SKIP
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self._root = Folder(spark, root)
        self._writable = False

    @property
    def root(self) -> str:
        """The root: an absolute path, or a URI for another file system than the local one."""
        return self._root.shown()

    @property
    def local_root(self) -> Path | None:
        """The root as a local path; None when it lies elsewhere (s3://, hdfs://, ...)."""
        return self._root.local()

    def path(self, contract: Contract) -> str:
        """Where the table lies, as :attr:`root`."""
        return f"{self.root.rstrip('/')}/{contract.name}"

    def exists(self, contract: Contract) -> bool:
        """Whether the table is there.

        Raises:
            TableError: something else is there: a file, a folder without a Delta table, a table of another program or
                of a newer contract.
        """
        log = self._log(contract)
        if not log.exists():
            if Folder(self.spark, self._uri(contract)).is_empty():
                return False
            raise TableError(
                f"{self.path(contract)} exists and is not a Delta table; move it away or set another tables.root"
            )
        if newest_version(log) < 0:  # what an interrupted first write leaves
            return False
        if self._uri(contract) in _OURS:
            return True
        properties = self._properties(contract)
        if properties.get(CONTRACT_PROPERTY) != contract.name:
            raise TableError(
                f"{self.path(contract)} is a Delta table that fm_spark did not write as {contract.name} "
                f"(no table property {CONTRACT_PROPERTY} = {contract.name}); move it away or set another tables.root"
            )
        refuse_newer(contract, properties, self.path(contract))
        _OURS[self._uri(contract)] = version_of(properties)
        return True

    def version(self, contract: Contract) -> int:
        """The newest Delta version of the table.

        Raises:
            TableError: the table is missing or not ours.
        """
        self._require(contract)
        return newest_version(self._log(contract))

    def version_of_run(self, contract: Contract, run_id: str) -> int | None:
        """The newest Delta version that the run committed; None when it committed none.

        When a person was forgotten since, the version without that person: it says the same of the run otherwise.

        Raises:
            TableError: the table is missing or not ours.
        """
        self._require(contract)
        return version_of_run(commits_newest_first(self._log(contract)), run_id, contract.mode == "replace")

    def commit(self, contract: Contract, version: int) -> Commit | None:
        """What the log says of a version; None when the log no longer goes back so far.

        Raises:
            TableError: the table is missing or not ours.
        """
        self._require(contract)
        return read_commit(self._log(contract), version)

    def read(self, contract: Contract, version: int | None = None, columns: Sequence[str] = ()) -> DataFrame:
        """The table, newest or at a Delta version; the contract's columns in order.

        Columns that came later than the version are null in it. Reading never changes a table.

        Args:
            columns: only these.

        Raises:
            TableError: the table is missing (the message names the job to run first), is not ours, or has no
                such version, or maintenance has removed it.
        """
        self._require(contract)
        reader = self.spark.read.format("delta")
        try:
            if version is not None:
                if version < newest_version(self._log(contract)):
                    check_readable(self._properties(contract), contract.name, version)
                reader = reader.option("versionAsOf", version)
            table = reader.load(self._uri(contract))
            there = table.schema
        except AnalysisException as error:
            which = "" if version is None else f" at version {version}"
            raise TableError(
                f"cannot read table {contract.name}{which} at {self.path(contract)}: {str(error).splitlines()[0]}"
            ) from error
        refuse_undeclared(contract, there, 1, self.path(contract))
        whole = with_later_columns(table, contract)
        return whole.select(*[f"`{name}`" for name in columns]) if columns else whole

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
        only: str = "",
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
                pandas frame is checked on the driver, and on a local root becomes a file there too, which saves a small
                table most of Spark's time.
            only: with mode ``by_run``, a condition that all rows fulfil; the run's other rows stay.
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
        exists = self.exists(contract)
        checked = _checked(self.spark, rows, contract, run_id, in_order)
        with storage_problems(self.path(contract)), checked as (kept, size):
            if exists:
                self._follow_contract(kept.schema, contract, run_id)
            if exists and contract.mode == "append" and not new_keys:
                kept = self._unknown(kept, contract)
                rows = kept
                if kept.isEmpty():
                    return self.version(contract)
            # a new table has nothing to replace, and looking for it is slow; but it holds unseen rows to their run
            where = _where(run_id, only) if contract.mode == "by_run" and (exists or in_order) else ""
            note = _note(contract, run_id, read)
            self._check_lock()  # making the rows may have taken long
            if not exists:
                self._create(kept.schema, contract, run_id)
            replaced = self._replaced_by_frame(rows, contract, run_id, only, size)
            if in_order:
                with explained(kept, contract, run_id):
                    self._commit(kept, contract, note, where)
            elif isinstance(rows, pd.DataFrame) and replaced is not None:
                files = write_file(arrow_rows(rows, kept.schema), contract, Path(self.path(contract)))
                self._commit_files(files, replaced, contract, note)
            else:
                self._commit(laid_out(kept, contract, size), contract, note, where)
        _OURS[self._uri(contract)] = contract.version
        return self.version(contract)

    def write_made(self, made: Made, contract: Contract, run_id: str, *, read: Mapping[str, int] | None = None) -> int:
        """As :meth:`write`, for rows that tasks make, in order and too many for Spark's writer to be quick.

        On a local root the tasks write the files; elsewhere, and where a file holds the run's rows beside those of
        another, the rows go through Spark.

        Raises:
            TableError: as :meth:`write`; also when rows do not ascend by the contract's order.
        """
        self.check_writable()
        exists, path = self.exists(contract), self.path(contract)
        replaced = (files_of_run(path, run_id) if exists else {}) if self.local_root else None
        if replaced is None:
            return self.write(made.frame(), contract, run_id, in_order=True, read=read)
        shape = shape_rows(made.frame(), contract).schema
        self._check_lock()
        with storage_problems(path):
            if exists:
                self._follow_contract(shape, contract, run_id)
            else:
                self._create(shape, contract, run_id)
            with refusals():
                files = write_files(made, contract, run_id, shape, Path(path))
            self._check_lock()  # making the rows may have taken long
            self._commit_files(files, replaced, contract, _note(contract, run_id, read))
        _OURS[self._uri(contract)] = contract.version
        return self.version(contract)

    def uri(self, contract: Contract) -> str:
        """Where the table lies, with the scheme of its file system."""
        return self._uri(contract)

    def commits(self, contract: Contract) -> Iterator[Commit]:
        """What the log says of the versions, newest first, as far as it goes back.

        Raises:
            TableError: the table is missing or not ours.
        """
        self._require(contract)
        return commits_newest_first(self._log(contract))

    def remove_run(self, contract: Contract, run_id: str) -> None:
        """Deletes the rows of a run, in one commit.

        Raises:
            TableError: the table is missing or not ours.
        """
        self._require(contract)
        self._check_lock()
        noted = settings(self.spark, {_USER_METADATA: _note(contract, run_id)})
        with storage_problems(self.path(contract)), noted:
            self.spark.sql(f"DELETE FROM {self._identifier(contract)} WHERE {_of_run(run_id)}")

    def sweep(self, contract: Contract) -> None:
        """Deletes the files that no version has needed for the contract's ``kept_hours``."""
        self._require(contract)
        # Delta lists the folders in so many tasks, 10,000 unless told otherwise
        with settings(self.spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "8"}):
            self.spark.sql(f"VACUUM {self._identifier(contract)}")

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

    def _uri(self, contract: Contract) -> str:
        return f"{self._root.uri().rstrip('/')}/{contract.name}"

    def _log(self, contract: Contract) -> Folder:
        return Folder(self.spark, f"{self._uri(contract)}/_delta_log")

    def _identifier(self, contract: Contract) -> str:
        quoted = self._uri(contract).replace("`", "``")
        return f"delta.`{quoted}`"

    def _properties(self, contract: Contract) -> dict[str, str]:
        try:
            shown = self.spark.sql(f"SHOW TBLPROPERTIES {self._identifier(contract)}").collect()
        except AnalysisException as error:
            raise TableError(
                f"{self.path(contract)} is not a Delta table that can be read ({str(error).splitlines()[0]}); "
                "move it away or set another tables.root"
            ) from error
        return {row["key"]: row["value"] for row in shown}

    def _require(self, contract: Contract) -> None:
        if not self.exists(contract):
            job = WRITTEN_BY[contract.name]
            raise TableError(f"no table {contract.name} at {self.path(contract)}; run ./spark-submit.sh {job} first")

    def _follow_contract(self, types: T.StructType, contract: Contract, run_id: str) -> None:
        """Refuses rows of other types than the table's, and brings a table of an older contract up to date."""
        columns = self.spark.read.format("delta").load(self._uri(contract)).schema
        there = {field.name: field.dataType.simpleString() for field in columns}
        for field in types:
            old, new = there.get(field.name), field.dataType.simpleString()
            if old is not None and old != new:
                raise TableError(
                    f"{self.path(contract)} holds {field.name} as {old}, the new rows have {new}; use another "
                    "tables.root for this input or remove the old tables"
                )
        version = _OURS[self._uri(contract)]
        refuse_undeclared(contract, columns, version, self.path(contract))
        if version < contract.version:
            session = self._noting(contract, migrated_by=run_id, contract_version=contract.version)
            migrate(session, self._identifier(contract), contract, columns, types)

    def _noting(self, contract: Contract, **values: object) -> SparkSession:
        """A session whose commits carry a note: statements take none, and tables are written side by side."""
        session = self.spark.newSession()
        note = {"table": contract.name, "fm_spark": __version__, **values}
        session.conf.set(_USER_METADATA, json.dumps(note))
        return session

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

    def _commit(self, rows: DataFrame, contract: Contract, note: str, where: str) -> None:
        try:
            # an option and not a setting of the session: several tables are written side by side
            writer = rows.write.format("delta").option("userMetadata", note)
            if where:
                writer = writer.option("replaceWhere", where)
            replaces = where or contract.mode == "replace"
            writer.mode("overwrite" if replaces else "append").save(self._uri(contract))
        except DeltaConcurrentModificationException as error:
            raise TableError(
                f"another job wrote {self.path(contract)} at the same time; its version stands, run this job again"
            ) from error

    def _replaced_by_frame(
        self, rows: DataFrame | pd.DataFrame, contract: Contract, run_id: str, only: str, size: int
    ) -> dict[str, int] | None:
        """The files that rows of the driver replace, where they can become a file without Spark; None where not."""
        if not isinstance(rows, pd.DataFrame) or not self.local_root or contract.partitions or size > FILE_BYTES:
            return None
        path = self.path(contract)
        if contract.mode == "replace":
            return all_files(path)
        found = files_of_run(path, run_id) if contract.mode == "by_run" else {}
        return None if only and found else found

    def _commit_files(self, files: Sequence[File], replaced: Mapping[str, int], contract: Contract, note: str) -> None:
        commit_files(self.path(contract), files, replaced, note)

    def _create(self, types: T.StructType, contract: Contract, run_id: str) -> None:
        """Commits the empty table: no single write of rows can say which columns are never null."""
        folder = Folder(self.spark, self._uri(contract))
        litter = not folder.is_empty()  # files of an interrupted first write, which belong to no version
        if litter and self.spark.version.startswith("3."):
            # Delta 3.3 cannot replace on Spark 3.5.6, https://github.com/delta-io/delta/issues/4671
            folder.remove()
            litter = False
        session = self._noting(contract, created_by=run_id, contract_version=contract.version)
        create(session, self._uri(contract), contract, types, litter)


@contextmanager
def _checked(
    spark: SparkSession, rows: DataFrame | pd.DataFrame, contract: Contract, run_id: str, in_order: bool
) -> Iterator[tuple[DataFrame, int]]:
    """The rows in the contract's shape, checked, and their rough size in bytes."""
    if isinstance(rows, pd.DataFrame):
        found = check_frame(rows, contract, run_id)
        yield shape_rows(spark_rows(spark, rows, contract), contract), found.bytes
        return
    if in_order:
        yield shape_rows(rows, contract), 0
        return
    with kept_rows(shape_rows(rows, contract)) as kept:
        yield kept, check_rows(kept, contract, run_id).bytes


def _where(run_id: str, only: str) -> str:
    return f"{_of_run(run_id)} AND {only}" if only else _of_run(run_id)


def _of_run(run_id: str) -> str:
    literal = run_id.replace("\\", "\\\\").replace("'", "\\'")
    return f"run_id = '{literal}'"


def _note(contract: Contract, run_id: str, read: Mapping[str, int] | None = None) -> str:
    return note_of(contract.name, run_id, WRITTEN_BY[contract.name], read)
