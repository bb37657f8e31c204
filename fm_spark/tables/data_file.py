"""One Parquet file of a table: how it is written, and what Delta's log says of it.

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import types as T

from fm_spark.tables.contracts import Contract

# the least of a row group: a look-up by key decodes one as a whole
ROW_GROUP_ROWS = 32_768
_WHOLE_GROUP_ROWS = 2**20
_DICTIONARY_BYTES = 4 * 2**20
_NO_DICTIONARY = "parquet.enable.dictionary#"
SKIPPING = "delta.dataSkippingStatsColumns"
"""Table property: the columns whose bounds a file's entry in the log has."""


@dataclass(frozen=True)
class File:
    """One file: its name in the folder of the table, bytes, rows, and the ``stats`` of Delta's protocol, as JSON."""

    path: str
    size: int
    rows: int
    stats: str


_ARROW: dict[type[T.DataType], pa.DataType] = {
    T.StringType: pa.string(),
    T.BooleanType: pa.bool_(),
    T.IntegerType: pa.int32(),
    T.LongType: pa.int64(),
    T.FloatType: pa.float32(),
    T.DoubleType: pa.float64(),
    T.BinaryType: pa.binary(),
    T.TimestampType: pa.timestamp("us", "UTC"),
}


def arrow_schema(types: T.StructType) -> pa.Schema:
    """Arrow's types of the types that contracts use; pyspark's own answer differs from version to version."""
    return pa.schema([(field.name, _arrow_type(field.dataType)) for field in types])


def _arrow_type(type_: T.DataType) -> pa.DataType:
    if isinstance(type_, T.ArrayType):
        return pa.list_(_arrow_type(type_.elementType))
    if isinstance(type_, T.MapType):
        return pa.map_(_arrow_type(type_.keyType), _arrow_type(type_.valueType))
    if isinstance(type_, T.StructType):
        return pa.struct([(field.name, _arrow_type(field.dataType)) for field in type_])
    return _ARROW[type(type_)]


def write_rows(rows: pa.Table, contract: Contract, folder: Path, files: int) -> list[File]:
    """Writes checked rows of the driver to files of the folder, in the contract's order; no file for no rows.

    Args:
        rows: the columns of the table, in order, with its types, of one partition.
        files: how many.
    """
    ordered = rows.sort_by([(column, "ascending") for column in contract.order or contract.key])
    inside = ordered.drop_columns(list(contract.partitions))
    each = max(1, -(-rows.num_rows // files))
    written: list[File] = []
    try:
        for number, begin in enumerate(range(0, rows.num_rows, each)):
            path = folder / f"part-{number:05d}-{uuid4()}.parquet"
            written.append(_write_rows(inside.slice(begin, each), contract, path))
    except BaseException:
        for one in written:
            (folder / one.path).unlink(missing_ok=True)
        raise
    return written


def _write_rows(rows: pa.Table, contract: Contract, path: Path) -> File:
    entry = LogEntry(contract)
    try:
        # a file of our own is closed also when the writer fails
        with path.open("wb") as sink, parquet_writer(sink, rows.schema, contract) as writer:
            size = ROW_GROUP_ROWS if contract.row_group_bytes else _WHOLE_GROUP_ROWS
            writer.write_table(rows, row_group_size=size)
        entry.add(rows)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return File(path.name, path.stat().st_size, entry.rows, entry.json())


def parquet_writer(sink: IO[bytes], schema: pa.Schema, contract: Contract) -> pq.ParquetWriter:
    """A writer of a file of the table, as its contract wants it."""
    properties = dict(contract.properties)
    plain = {name.removeprefix(_NO_DICTIONARY) for name in properties if name.startswith(_NO_DICTIONARY)}
    return pq.ParquetWriter(
        sink,
        schema,
        compression="snappy",
        use_dictionary=[column.name for column in schema if column.name not in plain],
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        write_statistics=_bounded(contract),
        # nothing that only Arrow reads
        store_schema=False,
    )


def _bounded(contract: Contract) -> list[str]:
    asked = dict(contract.properties).get(SKIPPING, "")
    names = asked.split(",") if asked else contract.column_names
    return [name for name in names if name not in contract.partitions]


class LogEntry:
    """What Delta's log says of a file: rows, nulls and bounds, of the columns of SKIPPING or of all.

    Of all, because delta-rs takes a column without bounds beside others that have some for one without values. Delta
    keeps no bounds of truth values and of nested ones.
    """

    def __init__(self, contract: Contract) -> None:
        self.rows = 0
        self._names = _bounded(contract)
        self._nulls = dict.fromkeys(self._names, 0)
        self._bounds: dict[str, tuple[Any, Any]] = {}

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        for name in self._names:
            values = table.column(name)
            self._nulls[name] += values.null_count
            if not _has_bounds(values.type) or values.null_count == len(values):
                continue
            found = pc.min_max(values)
            low, high = found["min"].as_py(), found["max"].as_py()
            old = self._bounds.get(name, (low, high))
            self._bounds[name] = (min(low, old[0]), max(high, old[1]))

    def json(self) -> str:
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: _bound(low) for name, (low, _) in self._bounds.items()},
                "maxValues": {name: _bound(high, up=True) for name, (_, high) in self._bounds.items()},
                "nullCount": self._nulls,
            }
        )


def _has_bounds(type_: pa.DataType) -> bool:
    return not (pa.types.is_nested(type_) or pa.types.is_boolean(type_) or pa.types.is_binary(type_))


def _bound(value: Any, up: bool = False) -> Any:
    """A value as JSON; times in milliseconds, as Delta has them, rounded down or up."""
    if not isinstance(value, datetime):
        return value
    rest = value.microsecond % 1000
    rounded = value + timedelta(microseconds=1000 - rest if up and rest else -rest)
    return rounded.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
