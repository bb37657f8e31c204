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
from fm_spark.tables.checks import check_rows
from fm_spark.tables.commits import Commit, commits_newest_first, newest_version, read_commit, version_of_run
from fm_spark.tables.contracts import Contract
from fm_spark.tables.driver_rows import check_frame, spark_rows
from fm_spark.tables.files import Folder
from fm_spark.tables.readable import check_readable
from fm_spark.tables.settings import LARGE_FILES, settings
from fm_spark.tables.shape import kept_rows, laid_out, shape_rows

CONTRACT_PROPERTY = "fm_spark.contract"
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

# tables whose owner has been checked in this process: every job makes a store of its own, and asking costs a query
_OURS: set[str] = set()
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
            TableError: something else is there: a file, a folder without a Delta table, a table of another program.
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
        properties = {row["key"]: row["value"] for row in self._show_properties(contract)}
        if properties.get(CONTRACT_PROPERTY) != contract.name:
            raise TableError(
                f"{self.path(contract)} is a Delta table that fm_spark did not write as {contract.name} "
                f"(no table property {CONTRACT_PROPERTY} = {contract.name}); move it away or set another tables.root"
            )
        _OURS.add(self._uri(contract))
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

        Args:
            columns: only these; a table that an earlier version of fm_spark wrote may lack others.

        Raises:
            TableError: the table is missing (the message names the job to run first), is not ours, or has no
                such version, or maintenance has removed it.
        """
        self._require(contract)
        reader = self.spark.read.format("delta")
        try:
            if version is not None:
                if version < newest_version(self._log(contract)):
                    properties = {row["key"]: row["value"] for row in self._show_properties(contract)}
                    check_readable(properties, contract.name, version)
                reader = reader.option("versionAsOf", version)
            wanted = columns or contract.column_names
            return reader.load(self._uri(contract)).select(*[f"`{name}`" for name in wanted])
        except AnalysisException as error:
            which = "" if version is None else f" at version {version}"
            raise TableError(
                f"cannot read table {contract.name}{which} at {self.path(contract)}: {str(error).splitlines()[0]}"
            ) from error

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
                pandas frame is checked on the driver, which saves a small table most of Spark's time.
            only: with mode ``by_run``, a condition that all rows fulfil; the run's other rows stay.
            new_keys: with mode ``append``, the caller has made sure that the table holds none of the keys.
            in_order: the caller has made sure that keys are unique and that every partition holds a range of the
                table's order, in that order: each becomes a file as it is, and the rows are not looked at before. For
                tables too large to be kept and read twice.
            read: versions of other tables that the rows were made from, by name; noted in the commit.

        Raises:
            TableError: see :func:`~fm_spark.tables.checks.check_rows`; a column is missing; the root cannot be
                written; the path holds something else; the ids or types differ from those of the table.
        """
        self.check_writable()
        exists = self.exists(contract)
        with _checked(self.spark, rows, contract, run_id, in_order) as (kept, size):
            if exists:
                self._check_types(kept, contract)
            if exists and contract.mode == "append" and not new_keys:
                kept = self._unknown(kept, contract)
                if kept.isEmpty():
                    return self.version(contract)
            where, note = self._where(contract, run_id, only), _note(contract, run_id, read)
            if in_order:
                with settings(self.spark, LARGE_FILES):
                    self._commit(kept, contract, note, where, exists)
            else:
                self._commit(laid_out(kept, contract, size), contract, note, where, exists)
        _OURS.add(self._uri(contract))
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
        with settings(self.spark, {_USER_METADATA: _note(contract, run_id)}):
            self.spark.sql(f"DELETE FROM {self._identifier(contract)} WHERE {_of_run(run_id)}")

    def sweep(self, contract: Contract) -> None:
        """Deletes the files that no version has needed for the contract's ``kept_hours``."""
        self._require(contract)
        # Delta lists the folders in so many tasks, 10,000 unless told otherwise
        with settings(self.spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "8"}):
            self.spark.sql(f"VACUUM {self._identifier(contract)}")

    def _uri(self, contract: Contract) -> str:
        return f"{self._root.uri().rstrip('/')}/{contract.name}"

    def _log(self, contract: Contract) -> Folder:
        return Folder(self.spark, f"{self._uri(contract)}/_delta_log")

    def _identifier(self, contract: Contract) -> str:
        quoted = self._uri(contract).replace("`", "``")
        return f"delta.`{quoted}`"

    def _show_properties(self, contract: Contract) -> list[T.Row]:
        try:
            return self.spark.sql(f"SHOW TBLPROPERTIES {self._identifier(contract)}").collect()
        except AnalysisException as error:
            raise TableError(
                f"{self.path(contract)} is not a Delta table that can be read ({str(error).splitlines()[0]}); "
                "move it away or set another tables.root"
            ) from error

    def _require(self, contract: Contract) -> None:
        if not self.exists(contract):
            job = WRITTEN_BY[contract.name]
            raise TableError(f"no table {contract.name} at {self.path(contract)}; run ./spark-submit.sh {job} first")

    def _check_types(self, rows: DataFrame, contract: Contract) -> None:
        there = {
            field.name: field.dataType for field in self.spark.read.format("delta").load(self._uri(contract)).schema
        }
        for field in rows.schema:
            old = there.get(field.name)
            if old is not None and old.simpleString() != field.dataType.simpleString():
                raise TableError(
                    f"{self.path(contract)} holds {field.name} as {old.simpleString()}, the new rows have "
                    f"{field.dataType.simpleString()}; use another tables.root for this input or remove the old tables"
                )

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

    def _where(self, contract: Contract, run_id: str, only: str) -> str:
        """The rows that a write replaces; "" for all of them, or none with mode ``append``."""
        if contract.mode != "by_run":
            return ""
        return f"{_of_run(run_id)} AND {only}" if only else _of_run(run_id)

    def _commit(self, rows: DataFrame, contract: Contract, note: str, where: str, exists: bool) -> None:
        try:
            if not exists:
                self._create(rows, contract, note)
                return
            writer = rows.write.format("delta").option("mergeSchema", "true")
            # an option and not a setting of the session: several tables are written side by side
            writer = writer.option("userMetadata", note)
            if where:
                writer = writer.option("replaceWhere", where)
            writer.mode("append" if contract.mode == "append" else "overwrite").save(self._uri(contract))
        except DeltaConcurrentModificationException as error:
            raise TableError(
                f"another job wrote {self.path(contract)} at the same time; its version stands, run this job again"
            ) from error

    def _create(self, rows: DataFrame, contract: Contract, note: str) -> None:
        created = rows.writeTo(self._identifier(contract)).using("delta").option("userMetadata", note)
        created = created.tableProperty(CONTRACT_PROPERTY, contract.name)
        if contract.partitions:
            created = created.partitionedBy(*[F.col(name) for name in contract.partitions])
        if contract.kept_hours:
            kept = f"interval {contract.kept_hours} hours"
            created = created.tableProperty("delta.deletedFileRetentionDuration", kept)
        created = created.tableProperty("comment", contract.comment)
        # files of an interrupted first write may lie there, and belong to no version
        if self.spark.version.startswith("3."):
            # Delta 3.3 cannot replace on Spark 3.5.6, https://github.com/delta-io/delta/issues/4671
            Folder(self.spark, self._uri(contract)).remove()
            created.create()
        else:
            created.createOrReplace()


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


def _of_run(run_id: str) -> str:
    literal = run_id.replace("\\", "\\\\").replace("'", "\\'")
    return f"run_id = '{literal}'"


def _note(contract: Contract, run_id: str, read: Mapping[str, int] | None = None) -> str:
    note = {"run_id": run_id, "table": contract.name, "fm_spark": __version__}
    return json.dumps(note | ({"read": dict(read)} if read else {}))
