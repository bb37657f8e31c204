"""The tables of a publication, at the versions that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.report.facts import TableFacts
from fm_spark.tables.contracts import ALL, PUBLICATIONS, Contract
from fm_spark.tables.local import Where
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore


def utc(micros: int) -> datetime:
    """The time that is so many microseconds after 1970, as Spark's ``unix_micros`` counts them.

    A timestamp itself would be shifted to the machine's zone on its way to Python.
    """
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


@dataclass(frozen=True)
class Pinned:
    """Reads the tables of one publication; of a table that holds several runs, the rows of this one."""

    store: TableStore
    publication: Publication

    def read(self, contract: Contract) -> DataFrame:
        """The table at the published version.

        Raises:
            TableError: the version is gone, for example vacuumed.
        """
        rows = self.store.read(contract, self.publication.tables.get(contract.name))
        return rows.where(F.col("run_id") == F.lit(self.publication.run_id)) if contract.mode == "by_run" else rows

    def rows(self, contract: Contract, columns: Sequence[str] = (), where: Where | None = None) -> pa.Table:
        """As :meth:`read`, on the driver; for what it may hold.

        Args:
            columns: only these; where: as for :meth:`~fm_spark.tables.store.TableStore.rows`.

        Raises:
            TableError: the version is gone, for example vacuumed.
        """
        version, own = self._at(contract)
        return self.store.rows(contract, version, columns, {**own, **(where or {})})

    def _at(self, contract: Contract) -> tuple[int | None, Where]:
        """The published version of a table, and what the rows of the run have there."""
        own = {"run_id": self.publication.run_id} if contract.mode == "by_run" else {}
        return self.publication.tables.get(contract.name), own

    def sizes(self) -> list[TableFacts]:
        """Rows, version and path of every published table, in the order of the contracts."""
        there = [c for c in ALL if c.name in self.publication.tables and c is not PUBLICATIONS]
        return [TableFacts(c.name, self._rows(c), self.publication.tables[c.name], self.store.path(c)) for c in there]

    def known_rows(self, contracts: Iterable[Contract]) -> dict[str, int]:
        """Rows by table name, of those tables where the log says so."""
        there = [contract for contract in contracts if contract.name in self.publication.tables]
        found = {contract.name: self._logged_rows(contract) for contract in there}
        return {name: rows for name, rows in found.items() if rows is not None}

    def _rows(self, contract: Contract) -> int:
        """Rows of the run, from the log of the commit where it says so: counting takes Spark jobs."""
        logged = self._logged_rows(contract)
        return self.store.count(contract, *self._at(contract)) if logged is None else logged

    def _logged_rows(self, contract: Contract) -> int | None:
        commit = self.store.commit(contract, self.publication.tables[contract.name])
        if commit is not None and commit.rows is not None:
            whole = contract.mode == "replace"
            if whole or (contract.mode == "by_run" and commit.run_id == self.publication.run_id):
                return commit.rows
        return None
