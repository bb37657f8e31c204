"""Rows that tasks make as Arrow batches, and their way into a table without Spark's writer between.

Spark takes Arrow's columns apart into rows and has its Parquet writer put them together again, which costs twenty
times as much as Arrow's own writer (``python -m benchmarks.table_write``; ADR 9). So on a local file system each task
writes the file of the rows that it makes, and the driver commits the files. Elsewhere the rows take Spark's way.

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.tables.contracts import Contract
from fm_spark.tables.data_file import ROW_GROUP_ROWS, File, LogEntry, arrow_schema, parquet_writer
from fm_spark.tables.in_order import ascending

Make = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_FILES = "path string, size bigint, rows bigint, stats string"


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
    return Made(rows, iter, rows.schema, checked=True)


# after one task has failed, others may go on writing for a moment
_LOOKS, _BETWEEN_LOOKS = 5, 0.2


@dataclass(frozen=True)
class _Plan:
    """What a task must know; ``token`` is in the names of all files of this write."""

    folder: str
    token: str
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

    No other file of this write stays: neither those of the tasks that did not fail beside one that did, nor those of
    tasks that Spark ran twice.

    Raises:
        TableError: in a task: rows break the contract, or do not ascend by its order.
    """
    token = uuid4().hex
    plan = _Plan(str(folder), token, contract, run_id, made.make, made.same, arrow_schema(types), made.checked)
    try:
        rows = made.source.mapInArrow(partial(_written, plan), _FILES).collect()
    except BaseException:
        for _ in range(_LOOKS):
            _remove_others(folder, token, [])
            time.sleep(_BETWEEN_LOOKS)
        raise
    files = [File(**row.asDict()) for row in rows]
    _remove_others(folder, token, [file.path for file in files])
    return files


def _remove_others(folder: Path, token: str, kept: Collection[str]) -> None:
    for path in folder.glob(f"part-*-{token}-*.parquet"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _written(plan: _Plan, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One row about the file of this task's rows; none when there are no rows."""
    contract = plan.contract
    context = TaskContext.get()
    name = f"part-{context.partitionId() if context else 0:05d}-{plan.token}-{uuid4().hex[:8]}.parquet"
    path, entry = Path(plan.folder) / name, LogEntry(contract)
    given = (_in_shape(plan, batch) for batch in plan.make(batches) if batch.num_rows)
    tables = _large(ascending(given, contract.order or contract.key, contract.name))
    first = next(tables, None)
    if first is None:
        return
    try:
        with path.open("wb") as sink, parquet_writer(sink, plan.schema, contract) as writer:
            for table in chain([first], tables):
                if not plan.checked:
                    _check(table, contract, plan.run_id)
                groups = max(1, table.num_rows // ROW_GROUP_ROWS)
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
        if sum(one.num_rows for one in held) >= ROW_GROUP_ROWS:
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
