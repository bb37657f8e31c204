"""Rows with given values, straight from a table's Parquet files.

pyarrow's datasets do this as well, and their import, which brings pandas along, takes longer than the look-up
(``python -m benchmarks.read``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Values = Mapping[str, Sequence[Any]]
"""Column -> the values of which rows must have one; None stands for no value."""


class Bounds(NamedTuple):
    """The least and the greatest value of a column in a part of a table; None where that is not known."""

    least: Any
    greatest: Any

    def may_hold(self, values: Sequence[Any]) -> bool:
        """Whether a row of the part may have one of the values."""
        if self.least is None or self.greatest is None or None in values:
            return True
        return any(self.least <= value <= self.greatest for value in values)


class LookupFile:
    """A file of a table; its footer is read once.

    Args:
        path: on a local file system.
        bounds: what the log says of its columns.
    """

    def __init__(self, path: str, bounds: Mapping[str, Bounds]) -> None:
        self._path, self._bounds = path, bounds
        self._opened: pq.ParquetFile | None = None

    def find(self, columns: Sequence[str], where: Values) -> pa.Table | None:
        """The rows; None where the log or the footer says that there are none."""
        if not all(self._bounds.get(name, _UNKNOWN).may_hold(values) for name, values in where.items()):
            return None
        if self._opened is None:
            self._opened = pq.ParquetFile(self._path, memory_map=True)
        file = self._opened
        there = file.schema_arrow.names
        groups = [n for n in range(file.num_row_groups) if self._group_may_hold(file.metadata.row_group(n), where)]
        if not groups or any(name not in there and None not in values for name, values in where.items()):
            return None
        wanted = [name for name in there if name in {*columns, *where}]
        rows = file.read_row_groups(groups, wanted)
        masks = [_has(rows[name], values) for name, values in where.items() if name in there]
        return rows.filter(reduce(pc.and_, masks)) if masks else rows

    @staticmethod
    def _group_may_hold(group: pq.RowGroupMetaData, where: Values) -> bool:
        for n in range(group.num_columns):
            column = group.column(n)
            values = where.get(column.path_in_schema)
            if values is not None and column.is_stats_set and column.statistics.has_min_max:
                bounds = Bounds(column.statistics.min, column.statistics.max)
                if not bounds.may_hold(values):
                    return False
        return True


_UNKNOWN = Bounds(None, None)


def lookup_files(root: str, entries: pa.Table, columns: Sequence[str]) -> list[LookupFile]:
    """The files of a version.

    Args:
        entries: what delta-rs says of them, flat.
        columns: of the table; only plain ones have bounds.
    """
    names = [name for name in columns if {f"min.{name}", f"max.{name}"} <= set(entries.column_names)]
    # times among the others would load pandas
    wanted = ["path", *(f"{bound}.{name}" for name in names for bound in ("min", "max"))]
    return [
        LookupFile(
            f"{root}/{unquote(row['path'])}", {name: Bounds(row[f"min.{name}"], row[f"max.{name}"]) for name in names}
        )
        for row in entries.select(wanted).to_pylist()
    ]


def find_rows(files: Sequence[LookupFile], schema: pa.Schema, columns: Sequence[str], where: Values) -> pa.Table:
    """The rows that have one of the values in each column of ``where``, in no order.

    Args:
        schema: of the table; a file may lack columns that came later.
    """
    shape = pa.schema([schema.field(name) for name in columns])
    found = [rows for file in files if (rows := file.find(columns, where)) is not None]
    return pa.concat_tables([_shaped(rows, shape) for rows in found]) if found else shape.empty_table()


def _shaped(rows: pa.Table, shape: pa.Schema) -> pa.Table:
    there = rows.column_names
    columns = [
        rows[field.name].cast(field.type) if field.name in there else pa.nulls(rows.num_rows, field.type)
        for field in shape
    ]
    return pa.table(columns, schema=shape)


def _has(column: pa.ChunkedArray, values: Sequence[Any]) -> pa.ChunkedArray:
    """Whether each value is one of those; null where the column has none and none is asked for."""
    known = _constants([value for value in values if value is not None], column.type)
    masks = [pc.equal(column, value) for value in known]
    return reduce(pc.or_kleene, [*masks, *([pc.is_null(column)] if None in values else [])])


def _constants(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """The values as Arrow has them; pyarrow's own way from Python's values loads pandas."""
    if not values:
        return pa.nulls(0, type_)
    if pa.types.is_integer(type_):
        return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(np.array(values, str(type_)).tobytes())])
    if pa.types.is_string(type_):
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        return pa.Array.from_buffers(type_, len(values), [None, *map(pa.py_buffer, (ends.tobytes(), b"".join(texts)))])
    return pa.array(values, type_)
