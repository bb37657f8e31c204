"""An example query of a table, as data: the documentation shows it in three languages, the tests run all three."""

from __future__ import annotations

from dataclasses import dataclass

RUN = "20261123T172144Z-3f9a"
MODEL = f"fm-{RUN}"
"""A run and its model, as the examples name them."""

Value = str | int | bool


@dataclass(frozen=True)
class Example:
    """What is asked, and how.

    Attributes:
        where: conditions ``(column, operator, value)`` that all hold; operators ``=``, ``<=``, ``>=``, ``<``, ``>``.
        order: the column by which the rows are sorted, ascending.
    """

    question: str
    columns: tuple[str, ...]
    where: tuple[tuple[str, str, Value], ...]
    order: str

    def sql(self, table: str) -> str:
        """The query in SQL, as Spark and DuckDB both read it."""
        conditions = " AND ".join(f"{column} {operator} {_literal(value)}" for column, operator, value in self.where)
        where = f" WHERE {conditions}" if conditions else ""
        return f"SELECT {', '.join(self.columns)} FROM {table}{where} ORDER BY {self.order}"

    def pandas(self, path: str) -> str:
        """The query in Python with pandas and deltalake; the conditions skip files and row groups."""
        columns = list(self.columns) if self.order in self.columns else [*self.columns, self.order]
        filters = f", filters={list(self.where)!r}" if self.where else ""
        return (
            f'DeltaTable("{path}").to_pandas(\n    columns={columns!r}{filters}\n).sort_values("{self.order}")'
        ).replace("'", '"')


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
