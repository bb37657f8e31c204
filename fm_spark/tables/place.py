"""One table where it lies: what is there, whether it is ours, and how it comes to follow its contract."""

from __future__ import annotations

import json
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from fm_spark import __version__
from fm_spark.errors import TableError
from fm_spark.tables.commits import newest_version
from fm_spark.tables.contracts import Contract
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.evolution import (
    CONTRACT_PROPERTY,
    create,
    declared,
    migrate,
    properties,
    refuse_newer,
    refuse_undeclared,
    version_of,
)
from fm_spark.tables.files import Folder
from fm_spark.tables.first_commit import commit_empty
from fm_spark.tables.local import properties_of, schema_of
from fm_spark.tables.readable import check_readable

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
# version of the contract of each table whose owner has been checked in this process, by its URI: every job makes a
# store of its own, and asking may cost a query
_OURS: dict[str, int] = {}


class Place:
    """The folder of one table below a root, and the Delta table in it, if there is one."""

    def __init__(self, spark: SparkSession, root: Folder, contract: Contract) -> None:
        self._spark, self._root, self._contract = spark, root, contract

    @property
    def path(self) -> str:
        """An absolute path, or a URI for another file system than the local one."""
        return f"{self._root.shown().rstrip('/')}/{self._contract.name}"

    @property
    def local(self) -> Path | None:
        """The folder as a local path; None when it lies elsewhere."""
        root = self._root.local()
        return None if root is None else root / self._contract.name

    @property
    def uri(self) -> str:
        """Where it lies, with the scheme of its file system."""
        return f"{self._root.uri().rstrip('/')}/{self._contract.name}"

    @property
    def identifier(self) -> str:
        """The table for SQL."""
        quoted = self.uri.replace("`", "``")
        return f"delta.`{quoted}`"

    @property
    def log(self) -> Folder:
        """The folder of the commits."""
        return Folder(self._spark, f"{self.uri}/_delta_log")

    def newest(self) -> int:
        """The newest version; -1 when there is none."""
        return newest_version(self.log)

    def exists(self) -> bool:
        """Whether the table is there.

        Raises:
            TableError: something else is there: a file, a folder without a Delta table, a table of another program or
                of a newer contract.
        """
        if not self.log.exists():
            if Folder(self._spark, self.uri).is_empty():
                return False
            raise TableError(f"{self.path} exists and is not a Delta table; move it away or set another tables.root")
        if self.newest() < 0:  # what an interrupted first write leaves
            return False
        if self.uri in _OURS:
            return True
        there, name = self.properties(), self._contract.name
        if there.get(CONTRACT_PROPERTY) != name:
            raise TableError(
                f"{self.path} is a Delta table that fm_spark did not write as {name} "
                f"(no table property {CONTRACT_PROPERTY} = {name}); move it away or set another tables.root"
            )
        refuse_newer(self._contract, there, self.path)
        _OURS[self.uri] = version_of(there)
        return True

    def require(self) -> None:
        """Raises when there is no table.

        Raises:
            TableError: the message names the job that writes it.
        """
        if not self.exists():
            job = WRITTEN_BY[self._contract.name]
            raise TableError(f"no table {self._contract.name} at {self.path}; run ./spark-submit.sh {job} first")

    def properties(self) -> dict[str, str]:
        """The properties of the table.

        Raises:
            TableError: it is no Delta table that can be read.
        """
        if self.local is not None:
            return properties_of(self.path)
        try:
            shown = self._spark.sql(f"SHOW TBLPROPERTIES {self.identifier}").collect()
        except AnalysisException as error:
            raise TableError(
                f"{self.path} is not a Delta table that can be read ({str(error).splitlines()[0]}); "
                "move it away or set another tables.root"
            ) from error
        return {row["key"]: row["value"] for row in shown}

    def columns(self) -> T.StructType:
        """The columns of the newest version."""
        if self.local is not None:
            return schema_of(self.path)
        return self._spark.read.format("delta").load(self.uri).schema

    def check_version(self, version: int | None) -> None:
        """Refuses a version that is not there yet, or that maintenance has removed.

        Raises:
            TableError: it is not there.
        """
        if version is None:
            return
        newest = self.newest()
        if version > newest:
            raise TableError(
                f"cannot read table {self._contract.name} at version {version} at {self.path}: the newest is {newest}"
            )
        if version < newest:
            check_readable(self.properties(), self._contract.name, version)

    def prepare(self, types: T.StructType, run_id: str) -> None:
        """Makes the table, or has it follow the contract: rows of these types can be committed then.

        Raises:
            TableError: as :meth:`follow`.
        """
        if self.exists():
            self.follow(types, run_id)
        else:
            self._make(types, run_id)
        _OURS[self.uri] = self._contract.version

    def follow(self, types: T.StructType, run_id: str) -> None:
        """Refuses rows of other types than the table's, and brings a table of an older contract up to date.

        Raises:
            TableError: the types differ, or the table has other columns than its contract declares.
        """
        columns = self.columns()
        there = {field.name: field.dataType.simpleString() for field in columns}
        for field in types:
            old, new = there.get(field.name), field.dataType.simpleString()
            if old is not None and old != new:
                raise TableError(
                    f"{self.path} holds {field.name} as {old}, the new rows have {new}; use another "
                    "tables.root for this input or remove the old tables"
                )
        version = _OURS[self.uri]
        refuse_undeclared(self._contract, columns.names, version, self.path)
        if version < self._contract.version:
            session = self._noting(self._note(migrated_by=run_id, contract_version=self._contract.version))
            migrate(session, self.identifier, self._contract, columns, types)

    def _make(self, types: T.StructType, run_id: str) -> None:
        """Commits the empty table: no single write of rows can say which columns are never null."""
        note = self._note(created_by=run_id, contract_version=self._contract.version)
        if self.local is not None:
            shape = declared(self._contract, types)
            commit_empty(self.local, self._contract, shape, properties(self._contract), note)
            return
        folder = Folder(self._spark, self.uri)
        litter = not folder.is_empty()  # files of an interrupted first write, which belong to no version
        if litter and self._spark.version.startswith("3."):
            # Delta 3.3 cannot replace on Spark 3.5.6, https://github.com/delta-io/delta/issues/4671
            folder.remove()
            litter = False
        create(self._noting(note), self.uri, self._contract, types, litter)

    def _note(self, **values: object) -> str:
        return json.dumps({"table": self._contract.name, "fm_spark": __version__, **values})

    def _noting(self, note: str) -> SparkSession:
        """A session whose commits carry a note: statements take none, and tables are written side by side."""
        session = self._spark.newSession()
        session.conf.set(USER_METADATA, note)
        return session
