"""Rows that tasks make as Arrow batches, and their way into a table without Spark's writer between.

Spark takes Arrow's columns apart into rows and has its Parquet writer put them together again, which costs twenty
times as much as Arrow's own writer (``python -m benchmarks.table_write``; ADR 9). So on a local file system each task
writes the file of the rows that it makes, and the driver commits the files. Elsewhere the rows take Spark's way.

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.tables.contracts import Contract
from fm_spark.tables.in_order import ascending

Make = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_FILES = "path string, size bigint, rows bigint, stats string"
# the least of a row group: a look-up by key decodes one as a whole
_ROW_GROUP_ROWS = 32_768
_WHOLE_GROUP_ROWS = 2**20
_DICTIONARY_BYTES = 4 * 2**20
_NO_DICTIONARY = "parquet.enable.dictionary#"
SKIPPING = "delta.dataSkippingStatsColumns"
"""Table property: the columns whose bounds a file's entry in the log has."""


@dataclass(frozen=True)
class Made:
    """Rows of a table, not made yet: ``source.mapInArrow(make, schema)`` with columns that are the same in all.

    Each task makes its rows in the order of the contract and makes no key of another task's.

    Attributes:
        schema: of what ``make`` gives.
        same: values of text columns that all rows have, by name.
        checked: whether the rows are known to fulfil the contract.
    """

    source: DataFrame
    make: Make
    schema: T.StructType
    same: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False

    def with_same(self, **values: str) -> Made:
        """The rows with more columns that are the same in all."""
        return replace(self, same={**self.same, **values})

    def types(self) -> dict[str, T.DataType]:
        """The types of all columns, by name."""
        made = {field.name: field.dataType for field in self.schema}
        return {**made, **dict.fromkeys(self.same, T.StringType())}

    def frame(self) -> DataFrame:
        """The rows as Spark knows rows."""
        same = [F.lit(value).alias(name) for name, value in self.same.items()]
        return self.source.mapInArrow(self.make, self.schema).select("*", *same)


def unchanged(rows: DataFrame) -> Made:
    """Rows that Spark has made, checked and brought into the order of the contract."""
    return Made(rows, _as_they_are, rows.schema, checked=True)


def _as_they_are(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


@dataclass(frozen=True)
class File:
    """One file: its name in the folder of the table, bytes, rows, and the ``stats`` of Delta's protocol, as JSON."""

    path: str
    size: int
    rows: int
    stats: str


@dataclass(frozen=True)
class _Plan:
    folder: str
    contract: Contract
    run_id: str
    make: Make
    same: Mapping[str, str]
    schema: pa.Schema
    checked: bool


def write_files(made: Made, contract: Contract, run_id: str, types: T.StructType, folder: Path) -> list[File]:
    """Has each task write the rows that it makes to one file of the folder; the files belong to no version yet.

    Args:
        types: the columns of the table, in order.
        folder: of the table, on a file system that all tasks see.

    Raises:
        TableError: in a task: rows break the contract, or do not ascend by its order.
    """
    plan = _Plan(str(folder), contract, run_id, made.make, made.same, arrow_schema(types), made.checked)
    rows = made.source.mapInArrow(partial(_written, plan), _FILES).collect()
    return [File(**row.asDict()) for row in rows]


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
    entry = _Entry(contract)
    try:
        # a file of our own is closed also when the writer fails
        with path.open("wb") as sink, _writer(sink, rows.schema, contract) as writer:
            size = _ROW_GROUP_ROWS if contract.row_group_bytes else _WHOLE_GROUP_ROWS
            writer.write_table(rows, row_group_size=size)
        entry.add(rows)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return File(path.name, path.stat().st_size, entry.rows, entry.json())


def _written(plan: _Plan, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One row about the file of this task's rows; none when there are no rows."""
    contract = plan.contract
    context = TaskContext.get()
    name = f"part-{context.partitionId() if context else 0:05d}-{uuid4()}.parquet"
    path, entry = Path(plan.folder) / name, _Entry(contract)
    given = (_in_shape(plan, batch) for batch in plan.make(batches) if batch.num_rows)
    tables = _large(ascending(given, contract.order or contract.key, contract.name))
    first = next(tables, None)
    if first is None:
        return
    try:
        with path.open("wb") as sink, _writer(sink, plan.schema, contract) as writer:
            for table in chain([first], tables):
                if not plan.checked:
                    _check(table, contract, plan.run_id)
                groups = max(1, table.num_rows // _ROW_GROUP_ROWS)
                writer.write_table(table, row_group_size=-(-table.num_rows // groups))
                entry.add(table)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    values = [name, path.stat().st_size, entry.rows, entry.json()]
    yield pa.RecordBatch.from_arrays([pa.array([value]) for value in values], names=["path", "size", "rows", "stats"])


def _large(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches joined until they make a row group at least, but for the last."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _ROW_GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _in_shape(plan: _Plan, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of the table, in order, with its types."""
    columns = []
    for column in plan.schema:
        if column.name in plan.same:
            columns.append(pa.repeat(pa.scalar(plan.same[column.name], column.type), batch.num_rows))
        else:
            columns.append(batch.column(column.name).cast(column.type))
    return pa.RecordBatch.from_arrays(columns, schema=plan.schema)


def _writer(sink: IO[bytes], schema: pa.Schema, contract: Contract) -> pq.ParquetWriter:
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


def _check(table: pa.Table, contract: Contract, run_id: str) -> None:
    """Refuses rows that break the contract.

    Raises:
        TableError: as :func:`~fm_spark.tables.driver_rows.check_frame`, about the rows of this part.
    """
    own = pc.all(pc.equal(table.column("run_id"), run_id)).as_py()
    if own and all(_fulfilled(table.column(column.name), column) for column in contract.columns):
        return
    from fm_spark.tables.driver_rows import check_frame

    check_frame(table.to_pandas(), contract, run_id)


def _fulfilled(values: pa.ChunkedArray, column: Any) -> bool:
    """Whether all values are there and pass the column's check; false also where this cannot tell quickly."""
    if values.null_count == len(values):
        return bool(column.nullable)
    check, type_ = column.check, values.type
    if values.null_count and not column.nullable:
        return False
    if not column.condition:
        return True
    if check.one_of and pa.types.is_string(type_):
        return set(pc.unique(values.drop_null()).to_pylist()) <= set(check.one_of)
    if not pa.types.is_integer(type_) and not pa.types.is_floating(type_):
        return False
    if pa.types.is_floating(type_) and not pc.all(pc.is_finite(values)).as_py():
        return False
    bounds = pc.min_max(values)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return (check.at_least is None or low >= check.at_least) and (check.at_most is None or high <= check.at_most)


class _Entry:
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
