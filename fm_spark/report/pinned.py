"""The tables of a publication, at the versions that it names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.report.facts import TableFacts
from fm_spark.tables.contracts import ALL, PUBLICATIONS, Contract
from fm_spark.tables.publications import Publication
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

    def sizes(self) -> list[TableFacts]:
        """Rows, version and path of every published table, in the order of the contracts; counted in one Spark job."""
        there = [c for c in ALL if c.name in self.publication.tables and c is not PUBLICATIONS]
        counts = [self.read(c).agg(F.lit(c.name).alias("name"), F.count(F.lit(1)).alias("rows")) for c in there]
        rows = {row["name"]: row["rows"] for row in reduce(DataFrame.unionAll, counts).collect()}
        return [TableFacts(c.name, rows[c.name], self.publication.tables[c.name], self.store.path(c)) for c in there]
