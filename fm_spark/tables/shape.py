"""Brings rows into the form of a table's contract."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.contracts import ID, Contract


def shape_rows(rows: DataFrame, contract: Contract) -> DataFrame:
    """The contract's columns in order, with its types and comments; other columns are left out.

    Raises:
        TableError: a column is missing, or an identifier is neither an integer nor a string.
    """
    given = {field.name: field.dataType for field in rows.schema}
    missing = [name for name in contract.column_names if name not in given]
    if missing:
        raise TableError(
            f"table {contract.name}: the rows have no column {', '.join(missing)}; they have {', '.join(given)}"
        )
    columns = []
    for column in contract.columns:
        wanted = _id_type(given[column.name], contract, column.name) if column.type == ID else column.type
        columns.append(F.col(f"`{column.name}`").cast(wanted).alias(column.name, metadata={"comment": column.comment}))
    return rows.select(*columns)


def _id_type(given: T.DataType, contract: Contract, name: str) -> str:
    if isinstance(given, T.ByteType | T.ShortType | T.IntegerType | T.LongType):
        return "bigint"
    if isinstance(given, T.StringType):
        return "string"
    raise TableError(f"table {contract.name}: {name} is {given.simpleString()}; identifiers are bigint or string")
