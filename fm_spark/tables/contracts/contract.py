"""What a contract of a table says.

Types are Spark SQL's. ``id`` stands for the type of the input's identifiers, bigint or string, kept as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fm_spark.tables.contracts.check import ANY, Check
from fm_spark.tables.contracts.example import Example

ID = "id"
Mode = Literal["replace", "append", "by_run"]


@dataclass(frozen=True)
class Column:
    """One column.

    Numbers with a fraction are always finite, also in arrays: NaN and infinity are nobody's score.

    Attributes:
        type: Spark SQL's, or ``id``.
        comment: what it means, and its unit.
        check: what the values must fulfil.
        since: the version of the contract that brought the column. Tables from before get it when they are next
            written to; their rows have no value in it, also where new ones must.
    """

    name: str
    type: str
    comment: str
    nullable: bool = False
    check: Check = ANY
    since: int = 1

    @property
    def rule(self) -> str:
        """What a value must be, in words; empty when any value of the type will do."""
        return self.check.words(self.type)

    @property
    def condition(self) -> str:
        """What every row fulfils, in Spark SQL; empty when any value of the type will do."""
        return self.check.condition(self.name, self.type)


@dataclass(frozen=True)
class Contract:
    """One table.

    Attributes:
        mode: ``replace`` (each run replaces the content), ``append`` (rows are only ever added), or ``by_run``
            (a run replaces the rows with its own run_id and touches no others).
        key: the columns that identify a row.
        order: the columns by which rows are laid out in the files; usually the look-up key.
        partitions: the columns whose values make the folders; a condition on them alone reads no file.
        properties: Delta's table properties that are not its defaults.
        row_group_bytes: size of a row group of the files, the least that a look-up reads; 0 = Parquet's default.
        example: a query that readers may want; without one the documentation shows the first columns.
        kept_hours: how long a file stays that the newest version does not need; 0 = Delta's default, a week.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    mode: Mode
    order: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    kept_hours: int = 0
    properties: tuple[tuple[str, str], ...] = ()
    row_group_bytes: int = 0
    example: Example | None = None

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]

    @property
    def version(self) -> int:
        """The version of the contract: that of its newest column."""
        return max(column.since for column in self.columns)


RUN_ID = Column("run_id", "string", "the run that wrote the row")
MODEL_VERSION = Column("model_version", "string", "the model that the row comes from; key of fm_model")
