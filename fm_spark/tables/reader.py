"""Reads the tables of the contracts: what is there, what the log says, and rows, by Spark or on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.commits import Commit, commits_newest_first, file_name, read_commit, version_of_run
from fm_spark.tables.contracts import Contract
from fm_spark.tables.data_file import arrow_schema
from fm_spark.tables.driver_rows import arrow_rows
from fm_spark.tables.evolution import refuse_undeclared, with_later_columns
from fm_spark.tables.files import Folder
from fm_spark.tables.handle import Handle
from fm_spark.tables.local import EVERYTHING, Where, condition, rows_of
from fm_spark.tables.made import Make
from fm_spark.tables.place import Place


class TableReader:
    """The Delta tables of one root folder, a path or a URI, as they lie there."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self._root = Folder(spark, root)

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
        return self._place(contract).path

    def uri(self, contract: Contract) -> str:
        """Where the table lies, with the scheme of its file system."""
        return self._place(contract).uri

    def exists(self, contract: Contract) -> bool:
        """Whether the table is there.

        Raises:
            TableError: something else is there: a file, a folder without a Delta table, a table of another program or
                of a newer contract.
        """
        return self._place(contract).exists()

    def version(self, contract: Contract) -> int:
        """The newest Delta version of the table.

        Raises:
            TableError: the table is missing or not ours.
        """
        return self._there(contract).newest()

    def version_of_run(self, contract: Contract, run_id: str) -> int | None:
        """The newest Delta version that the run committed; None when it committed none.

        When a person was forgotten since, the version without that person: it says the same of the run otherwise.

        Raises:
            TableError: the table is missing or not ours.
        """
        return version_of_run(self.commits(contract), run_id, contract.mode == "replace")

    def commit(self, contract: Contract, version: int) -> Commit | None:
        """What the log says of a version; None when the log no longer goes back so far.

        Raises:
            TableError: the table is missing or not ours.
        """
        return read_commit(self._there(contract).log, version)

    def commits(self, contract: Contract) -> Iterator[Commit]:
        """What the log says of the versions, newest first, as far as it goes back.

        Raises:
            TableError: the table is missing or not ours.
        """
        return commits_newest_first(self._there(contract).log)

    def columns(self, contract: Contract) -> T.StructType:
        """The columns of the newest version.

        Raises:
            TableError: the table is missing or not ours.
        """
        return self._there(contract).columns()

    def properties(self, contract: Contract) -> dict[str, str]:
        """The properties of the table.

        Raises:
            TableError: the table is missing or not ours.
        """
        return self._there(contract).properties()

    def files_of(self, contract: Contract, version: int) -> frozenset[str]:
        """Names of the data files of a version.

        Raises:
            TableError: the table is missing or not ours, or the log no longer goes back so far.
        """
        place = self._there(contract)
        if place.local is not None:
            paths = Handle(place.path, version).files()
        else:
            try:
                reader = self.spark.read.format("delta").option("versionAsOf", version)
                paths = reader.load(place.uri).inputFiles()
            except AnalysisException as error:
                raise TableError(f"{_named(contract, version, place)}: {str(error).splitlines()[0]}") from error
        return frozenset(map(file_name, paths))

    def read(self, contract: Contract, version: int | None = None, columns: Sequence[str] = ()) -> DataFrame:
        """The table, newest or at a Delta version; the contract's columns in order.

        Columns that came later than the version are null in it. Reading never changes a table.

        Args:
            columns: only these.

        Raises:
            TableError: the table is missing (the message names the job to run first), is not ours, or has no
                such version, or maintenance has removed it.
        """
        place = self._there(contract)
        reader = self.spark.read.format("delta")
        try:
            if version is not None:
                place.check_version(version)
                reader = reader.option("versionAsOf", version)
            table = reader.load(place.uri)
            there = table.schema
        except AnalysisException as error:
            raise TableError(f"cannot read {_named(contract, version, place)}: {str(error).splitlines()[0]}") from error
        refuse_undeclared(contract, there.names, 1, place.path)
        whole = with_later_columns(table, contract)
        return whole.select(*[f"`{name}`" for name in columns]) if columns else whole

    def rows(
        self, contract: Contract, version: int | None = None, columns: Sequence[str] = (), where: Where = EVERYTHING
    ) -> pa.Table:
        """The table, or rows of it, on the driver, in no order; for what the driver may hold.

        On a local root the files are read without Spark (ADR 10).

        Args:
            columns: only these.
            where: column -> the value that rows must have, or a list of values of which they must have one.

        Raises:
            TableError: as :meth:`read`; also when a file of the version is gone or damaged.
        """
        if self.local_root is None:
            found = self._filtered(contract, version, columns, where)
            return arrow_rows(found.toPandas(), found.schema)
        with self._at(contract, version) as table:
            return rows_of(table, columns or contract.column_names, where)

    def batches(self, contract: Contract, columns: Sequence[str], where: Where) -> Iterator[pa.RecordBatch]:
        """What :meth:`rows` gives of the newest version, a batch at a time, for rows that are many and large.

        Raises:
            TableError: as :meth:`rows`.
        """
        if self.local_root is None:
            yield from self.rows(contract, None, columns, where).to_batches()
        else:
            with self._at(contract, None) as table:
                yield from table.batches(columns, condition(where, table.schema))

    def tallied(
        self, contract: Contract, tally: Make, schema: T.StructType, version: int, columns: Sequence[str], where: Where
    ) -> pa.Table:
        """What ``tally`` makes of the rows: a few rows of many, for what the driver may not hold.

        On a local root the driver goes through the rows batch by batch, elsewhere tasks do.

        Args:
            tally: gets batches with the columns and gives some with the schema, which may be of parts of the rows.
            columns, where: as for :meth:`rows`.

        Raises:
            TableError: as :meth:`rows`.
        """
        if self.local_root is None:
            rows = self._filtered(contract, version, columns, where)
            found = rows.mapInArrow(tally, schema)
            return arrow_rows(found.toPandas(), found.schema)
        with self._at(contract, version) as table:
            batches = table.batches(columns, condition(where, table.schema))
            return pa.Table.from_batches(tally(batches), arrow_schema(schema))

    def each(self, contract: Contract, columns: Sequence[str], where: Where) -> Iterator[Mapping[str, Any]]:
        """Row by row what :meth:`rows` gives of the newest version, for rows that are large and few.

        Elsewhere than on a local root Spark hands them over partition by partition: all at once may be more than a job
        may return.

        Raises:
            TableError: as :meth:`rows`.
        """
        if self.local_root is None:
            for row in self._filtered(contract, None, columns, where).toLocalIterator():
                yield row.asDict()
        else:
            yield from self.rows(contract, None, columns, where).to_pylist()

    def count(self, contract: Contract, version: int | None = None, where: Where = EVERYTHING) -> int:
        """How many rows fulfil the conditions.

        Args:
            where: as for :meth:`rows`.

        Raises:
            TableError: as :meth:`rows`.
        """
        if self.local_root is None:
            return self._filtered(contract, version, (), where).count()
        with self._at(contract, version) as table:
            return table.count(condition(where, table.schema))

    def one(self, contract: Contract, column: str, version: int | None = None, where: Where = EVERYTHING) -> Any:
        """The value of a column in some row, of a large table the first one that comes; None without any row.

        Args:
            where: as for :meth:`rows`.

        Raises:
            TableError: as :meth:`rows`.
        """
        if self.local_root is None:
            row = self._filtered(contract, version, [column], where).first()
            return None if row is None else row[0]
        with self._at(contract, version) as table:
            found = table.head(1, [column], condition(where, table.schema))
        return found[column][0].as_py() if found.num_rows else None

    def _place(self, contract: Contract) -> Place:
        return Place(self.spark, self._root, contract)

    def _there(self, contract: Contract) -> Place:
        """The place of a table that is there."""
        place = self._place(contract)
        place.require()
        return place

    @contextmanager
    def _at(self, contract: Contract, version: int | None) -> Iterator[Handle]:
        """A table on a local root at a version, and what is said when it cannot be read."""
        place = self._there(contract)
        place.check_version(version)
        try:
            table = Handle(place.path, version)
        except TableError as error:
            raise TableError(f"cannot read {_named(contract, version, place)}: {error}") from error
        refuse_undeclared(contract, table.schema.names, 1, place.path)
        try:
            yield table
        except TableError as error:
            raise TableError(f"cannot read {_named(contract, version, place)}: {error}") from error

    def _filtered(self, contract: Contract, version: int | None, columns: Sequence[str], where: Where) -> DataFrame:
        found = self.read(contract, version)
        for name, value in where.items():
            column = F.col(f"`{name}`")
            found = found.where(column.isin(list(value)) if isinstance(value, list | tuple) else column == F.lit(value))
        return found.select(*[f"`{name}`" for name in columns]) if columns else found


def _named(contract: Contract, version: int | None, place: Place) -> str:
    return f"table {contract.name}{'' if version is None else f' at version {version}'} at {place.path}"
