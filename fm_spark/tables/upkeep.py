"""One table as Delta keeps it: files, properties, and the commits that change its form and not what it says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from delta.tables import DeltaTable
from pyspark.sql import Column
from pyspark.sql import types as T

from fm_spark import __version__
from fm_spark.errors import TableError
from fm_spark.tables.contracts import Contract
from fm_spark.tables.files import File, Folder
from fm_spark.tables.place import USER_METADATA
from fm_spark.tables.settings import settings
from fm_spark.tables.store import TableStore

# a file of at least so many bytes is left alone, and none is made larger than the second number
SMALL_FILE, LARGEST_FILE = 16 * 2**20, 128 * 2**20
_INVENTORY = "path string, length bigint, isDir boolean, modificationTime bigint"

_RUN_IDS = T.StructType([T.StructField("run_id", T.StringType())])


def _distinct(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pc.unique(batch.column(0))], names=["run_id"])


class Upkeep:
    """One table of a store, for the jobs that look after it; they commit under their own name and for no run."""

    def __init__(self, store: TableStore, contract: Contract, job: str) -> None:
        self.store, self.contract, self._job = store, contract, job

    @property
    def delta(self) -> DeltaTable:
        """Delta's own handle of the table."""
        return DeltaTable.forPath(self.store.spark, self.store.uri(self.contract))

    def properties(self) -> dict[str, str]:
        """The table properties."""
        return self.store.properties(self.contract)

    def files(self) -> list[File]:
        """Every file in the table's folder, the log included."""
        return Folder(self.store.spark, self.store.uri(self.contract)).files()

    def files_of(self, version: int) -> frozenset[str] | None:
        """Names of the data files of a version; None when the log no longer goes back so far."""
        try:
            return self.store.files_of(self.contract, version)
        except TableError:
            return None

    @contextmanager
    def committing(self, more: Mapping[str, str] | None = None) -> Iterator[None]:
        """Commits of the block name the job and no run; ``more`` settings of the session hold for the block."""
        note = json.dumps({"run_id": "", "job": self._job, "table": self.contract.name, "fm_spark": __version__})
        wanted = {USER_METADATA: note, **(more or {})}
        with settings(self.store.spark, wanted):
            yield

    def compact(self) -> None:
        """Joins the small files of the table; rows keep their order within a file, readers notice nothing."""
        sizes = {"minFileSize": SMALL_FILE, "maxFileSize": LARGEST_FILE}
        with self.committing({f"spark.databricks.delta.optimize.{name}": str(n) for name, n in sizes.items()}):
            self.delta.optimize().executeCompaction()

    def delete(self, condition: Column) -> None:
        """Deletes rows, in one commit."""
        with self.committing():
            self.delta.delete(condition)

    def set_properties(self, wanted: Mapping[str, str]) -> None:
        """Sets those table properties that differ, in one commit; none when all are so already.

        Args:
            wanted: names and values of this program's own, without quotes and backslashes.
        """
        there = self.properties()
        pairs = ", ".join(f"'{name}' = '{value}'" for name, value in wanted.items() if there.get(name) != value)
        if pairs:
            with self.committing():
                self.store.spark.sql(f"ALTER TABLE {self._identifier()} SET TBLPROPERTIES ({pairs})")

    def remove_files(self, files: Sequence[File], hours: float) -> None:
        """Has VACUUM delete these files, but for those that versions of the last ``hours`` need.

        Delta refuses less than a week unless told that somebody has thought about it, and
        :func:`~fm_spark.tables.retention.retained` has.
        """
        if not files:
            return
        spark, view = self.store.spark, f"fm_spark_inventory_{uuid4().hex}"
        rows = [(file.uri, file.size, False, file.modified) for file in files]
        spark.createDataFrame(rows, _INVENTORY).createOrReplaceTempView(view)
        permitted = {
            "spark.databricks.delta.retentionDurationCheck.enabled": "false",
            # Delta lists the folders in so many tasks, 10,000 unless told otherwise
            "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        }
        try:
            with self.committing(permitted):
                listed = f"(SELECT path, length, isDir, modificationTime FROM {view})"
                spark.sql(f"VACUUM {self._identifier()} USING INVENTORY {listed} RETAIN {hours:.3f} HOURS")
        finally:
            spark.catalog.dropTempView(view)

    def run_ids(self) -> list[str]:
        """The runs that have rows in the table."""
        store, contract = self.store, self.contract
        found = store.tallied(contract, _distinct, _RUN_IDS, store.version(contract), ["run_id"], {})
        return sorted(set(found["run_id"].to_pylist()))

    def _identifier(self) -> str:
        quoted = self.store.uri(self.contract).replace("`", "``")
        return f"delta.`{quoted}`"
