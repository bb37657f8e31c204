"""Tables on a local file system, looked at and read on the driver without Spark.

Spark plans every query and keeps up Delta's state in jobs of its own, which for a table that the driver holds anyway
takes a hundred times as long as reading its files (``python -m benchmarks.driver_tables``; ADR 10).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.contracts import Contract
from fm_spark.tables.handle import Handle, short

Where = Mapping[str, object]
"""What rows must have: column -> its value, or a list of values of which it must have one."""


def properties_of(path: str) -> dict[str, str]:
    """The properties of the newest version.

    Raises:
        TableError: it is no Delta table that can be read.
    """
    table = _newest(path)
    return {name: value for name, value in table.metadata().configuration.items() if value is not None}


def schema_of(path: str) -> T.StructType:
    """The columns of the newest version.

    Raises:
        TableError: it is no Delta table that can be read.
    """
    return T.StructType.fromJson(json.loads(_newest(path).schema().to_json()))


def rows_of(path: str, contract: Contract, version: int | None, columns: Sequence[str], where: Where) -> pa.Table:
    """The rows that fulfil the conditions; columns that came later than the version are null in it.

    Raises:
        TableError: there is no such version, or a file of it cannot be read.
    """
    handle = Handle(path, version)
    wanted = list(columns) or contract.column_names
    there = set(handle.schema.names)
    found = handle.read([name for name in wanted if name in there], matches(where))
    lists = [found[name] if name in there else pa.nulls(found.num_rows) for name in wanted]
    return pa.table(lists, names=wanted)


def batches_of(path: str, version: int, columns: Sequence[str], where: Where) -> Iterator[pa.RecordBatch]:
    """As :func:`rows_of`, a batch at a time, of columns that the version has."""
    yield from Handle(path, version).batches(columns, matches(where))


def count_of(path: str, version: int | None, where: Where) -> int:
    """How many rows fulfil the conditions.

    Raises:
        TableError: there is no such version, or a file of it cannot be read.
    """
    return Handle(path, version).count(matches(where))


def some_row(path: str, version: int | None, column: str, where: Where) -> pa.Table:
    """One row of those that fulfil the conditions, or none: of a large table only its first batch is read.

    Raises:
        TableError: there is no such version, or a file of it cannot be read.
    """
    return Handle(path, version).head(1, [column], matches(where))


def without(rows: pa.Table, where: Where) -> pa.Table:
    """The rows that do not fulfil all conditions; columns of conditions have no nulls."""
    found = matches(where)
    return rows.slice(0, 0) if found is None else rows.filter(~found)


def matches(where: Where) -> pc.Expression | None:
    """The conditions as pyarrow's expression; None when there are none."""
    tests = [_test(name, value) for name, value in where.items()]
    return reduce(and_, tests) if tests else None


def _test(name: str, value: object) -> pc.Expression:
    if not isinstance(value, list | tuple):
        return pc.field(name) == value
    # no value at all has no type that could be compared
    return pc.field(name).isin(list(value)) if value else pc.scalar(False)


def _newest(path: str) -> DeltaTable:
    try:
        return DeltaTable(path, without_files=True)
    except (DeltaError, OSError) as error:
        raise TableError(
            f"{path} is not a Delta table that can be read ({short(error)}); move it away or set another tables.root"
        ) from error
