"""Brings rows into the form of a table's contract and into as few files as their size asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.types import _parse_datatype_string

from fm_spark.errors import TableError
from fm_spark.tables.contracts import ID, Contract

FILE_BYTES = 128 * 2**20
"""Of one file: large enough to scan well, small enough for one task."""
# rows that tell how well a large table compresses: more than a row group of the tables that are looked up by key
_SAMPLE_ROWS = 200_000


def shape_rows(rows: DataFrame, contract: Contract) -> DataFrame:
    """The contract's columns in order, with its types and comments; other columns are left out.

    Raises:
        TableError: as :func:`shape_of`.
    """
    shape = shape_of({field.name: field.dataType for field in rows.schema}, contract)
    return rows.select(
        *[
            F.col(f"`{column.name}`").cast(type_.dataType).alias(column.name, metadata={"comment": column.comment})
            for column, type_ in zip(contract.columns, shape, strict=True)
        ]
    )


def shape_of(given: Mapping[str, T.DataType], contract: Contract) -> T.StructType:
    """The types that rows have in the table.

    Args:
        given: types of the columns that there are.

    Raises:
        TableError: a column is missing, or an identifier is neither an integer nor a string.
    """
    missing = [name for name in contract.column_names if name not in given]
    if missing:
        raise TableError(
            f"table {contract.name}: the rows have no column {', '.join(missing)}; they have {', '.join(given)}"
        )
    return T.StructType(
        [
            T.StructField(
                c.name, _id_type(given[c.name], contract, c.name) if c.type == ID else parsed_type(c.type), c.nullable
            )
            for c in contract.columns
        ]
    )


@cache
def parsed_type(text: str) -> T.DataType:
    """The type that Spark SQL calls so; needs a session."""
    return _parse_datatype_string(text)


def laid_out(rows: DataFrame, contract: Contract, size: int) -> DataFrame:
    """The rows in as few files as their size asks for, sorted by the look-up key.

    Args:
        rows: kept, because a large table is sampled.
        size: rough bytes of the rows in memory, which no file exceeds.
    """
    order = list(contract.order or contract.key)
    files = 1 if size <= FILE_BYTES else round(_parquet_bytes(rows, order) / FILE_BYTES)
    spread = rows.coalesce(1) if files <= 1 else rows.repartitionByRange(files, *order)
    return spread.sortWithinPartitions(*order)


@contextmanager
def kept_rows(rows: DataFrame) -> Iterator[DataFrame]:
    """Persists the rows for the checks and the write, so that both see the same ones and they are made once."""
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield rows
    finally:
        rows.unpersist()


def _parquet_bytes(rows: DataFrame, order: list[str]) -> int:
    """Bytes of the rows as Parquet, judged by what the first ones take."""
    first = rows.limit(_SAMPLE_ROWS).sortWithinPartitions(*order)
    made = first.mapInArrow(_written, "rows bigint, bytes bigint").agg(F.sum("rows"), F.sum("bytes")).collect()[0]
    return int(rows.count() * made[1] / made[0]) if made[0] else 0


def _written(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    given = list(batches)
    if given:
        sink = pa.BufferOutputStream()
        table = pa.Table.from_batches(given)
        pq.write_table(table, sink, compression="snappy")
        size = [table.num_rows], [sink.getvalue().size]
        yield pa.RecordBatch.from_arrays([pa.array(values, pa.int64()) for values in size], names=["rows", "bytes"])


def _id_type(given: T.DataType, contract: Contract, name: str) -> T.DataType:
    if isinstance(given, T.ByteType | T.ShortType | T.IntegerType | T.LongType):
        return T.LongType()
    if isinstance(given, T.StringType):
        return T.StringType()
    raise TableError(f"table {contract.name}: {name} is {given.simpleString()}; identifiers are bigint or string")
