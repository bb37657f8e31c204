"""Tables on a local file system, looked at and read on the driver without Spark.

Spark plans every query and keeps up Delta's state in jobs of its own, which for a table that the driver holds anyway
takes a hundred times as long as reading its files (``python -m benchmarks.driver_tables``; ADR 10).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.handle import Handle, any_of, short

Where = Mapping[str, object]
"""What rows must have: column -> its value, or a list of values of which it must have one."""
EVERYTHING: Where = {}


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


def rows_of(table: Handle, columns: Sequence[str], where: Where) -> pa.Table:
    """The rows that fulfil the conditions; columns that came later than the version are null in it.

    Raises:
        TableError: a file of the version cannot be read.
    """
    there = set(table.schema.names)
    found = table.read([name for name in columns if name in there], condition(where, table.schema))
    lists = [found[name] if name in there else pa.nulls(found.num_rows) for name in columns]
    return pa.table(lists, names=list(columns))


def without(rows: pa.Table, where: Where) -> pa.Table:
    """The rows that do not fulfil all conditions; columns of conditions have no nulls."""
    found = condition(where, rows.schema)
    return rows.slice(0, 0) if found is None else rows.filter(~found)


def condition(where: Where, schema: pa.Schema) -> pc.Expression | None:
    """The conditions as pyarrow's expression; None when there are none."""
    listed = {name: value if isinstance(value, list | tuple) else [value] for name, value in where.items()}
    return any_of(listed, schema)


def _newest(path: str) -> DeltaTable:
    try:
        return DeltaTable(path, without_files=True)
    except (DeltaError, OSError) as error:
        raise TableError(
            f"{path} is not a Delta table that can be read ({short(error)}); move it away or set another tables.root"
        ) from error
