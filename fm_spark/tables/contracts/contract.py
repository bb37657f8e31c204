"""What a contract of a table says.

Types are Spark SQL's. ``id`` stands for the type of the input's identifiers, bigint or string, kept as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ID = "id"
Mode = Literal["replace", "append", "by_run"]


@dataclass(frozen=True)
class Column:
    """One column: Spark SQL type (or ``id``), meaning, and whether it may be null."""

    name: str
    type: str
    comment: str
    nullable: bool = False


@dataclass(frozen=True)
class Contract:
    """One table.

    Attributes:
        mode: ``replace`` (each run replaces the content), ``append`` (rows are only ever added), or ``by_run``
            (a run replaces the rows with its own run_id and touches no others).
        key: the columns that identify a row.
        order: the columns by which rows are laid out in the files; usually the look-up key.
        partitions: the columns whose values make the folders; a condition on them alone reads no file.
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

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]


RUN_ID = Column("run_id", "string", "the run that wrote the row")
MODEL_VERSION = Column("model_version", "string", "the model that the row comes from; key of fm_model")
