"""User histories straight from the files of the events table, where tasks see them and they lie in order.

The job ``events`` writes them by (user_id, position), each file a range. So a task that is to have a range of users
reads the row groups that hold them and no others: Spark would read, shuffle and sort them all again, which takes longer
than ranking does (``python -m benchmarks.recommend``; ADR 10).

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fm_spark.errors import TableError
from fm_spark.tables.in_order import ascending

USER, POSITION = "user_id", "position"
_BATCH = 65_536


@dataclass(frozen=True)
class RowGroup:
    """A part of a file: its place there, its rows, and the least and the greatest user of them."""

    file: str
    number: int
    rows: int
    least: Any
    greatest: Any
    first: int

    @property
    def order(self) -> tuple[Any, Any, int]:
        """Row groups whose users do not overlap are in the order of the table by it; ``first``: least position."""
        return self.least, self.greatest, self.first


@dataclass(frozen=True)
class UserRange:
    """The users from ``begin`` on and before ``end``; None stands for no bound."""

    begin: Any
    end: Any

    def overlaps(self, group: RowGroup) -> bool:
        """Whether the row group may hold rows of them."""
        return (self.begin is None or group.greatest >= self.begin) and (self.end is None or group.least < self.end)

    def rows_of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of these users."""
        user, inside = batch.column(USER), []
        if self.begin is not None and user[0].as_py() < self.begin:
            inside.append(pc.greater_equal(user, pa.scalar(self.begin, user.type)))
        if self.end is not None and user[-1].as_py() >= self.end:
            inside.append(pc.less(user, pa.scalar(self.end, user.type)))
        return batch.filter(reduce(pc.and_, inside)) if inside else batch


def row_groups(files: Sequence[str]) -> list[RowGroup] | None:
    """The row groups in the order of the table; None where that cannot be told: users overlap, or bounds are missing.

    Args:
        files: paths of the events table's files.
    """
    found = []
    for file in files:
        footer = pq.read_metadata(file)
        place = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            user, position = (group.column(place[name]).statistics for name in (USER, POSITION))
            if not group.num_rows:
                continue
            if user is None or position is None or not (user.has_min_max and position.has_min_max):
                return None
            found.append(RowGroup(file, number, group.num_rows, user.min, user.max, position.min))
    found.sort(key=lambda one: one.order)
    ascend = all(before.greatest <= after.least for before, after in itertools.pairwise(found))
    return found if ascend else None


def user_ranges(groups: Sequence[RowGroup], n: int) -> list[UserRange]:
    """Cuts the users into ``n`` ranges of about equally many rows, some of which may be empty.

    Args:
        groups: from :func:`row_groups`.
    """
    ends = np.cumsum([group.rows for group in groups])
    cuts = [_user_at(groups, ends, part * int(ends[-1]) // n) for part in range(1, n)] if len(groups) else []
    cuts = sorted(set(cuts))
    bounds = [None, *cuts, None]
    return [UserRange(begin, end) for begin, end in itertools.pairwise(bounds)]


def _user_at(groups: Sequence[RowGroup], ends: np.ndarray[Any, Any], row: int) -> Any:
    at = int(np.searchsorted(ends, row, side="right"))
    group = groups[at]
    inside = row - (int(ends[at]) - group.rows)
    return pq.ParquetFile(group.file).read_row_group(group.number, [USER])[USER][inside].as_py()


def rows_of_range(groups: Sequence[RowGroup], users: UserRange, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a range of users, in the order of the table; memory does not grow with them.

    Args:
        columns: beside :data:`USER` and :data:`POSITION`, which are read in any case.

    Raises:
        TableError: the rows of a file are not in order.
    """
    file = ""

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal file
        for group in groups:
            if users.overlaps(group):
                file = group.file
                parts = pq.ParquetFile(file, memory_map=True).iter_batches(
                    _BATCH, [group.number], [USER, POSITION, *columns], use_threads=False
                )
                yield from (users.rows_of(part) for part in parts if part.num_rows)

    try:
        yield from (rows for rows in ascending(batches(), (USER, POSITION), "events") if rows.num_rows)
    except TableError as error:
        raise TableError(
            f"the events in {file} are not in the order of (user_id, position), in which the job events writes them; "
            "run ./spark-submit.sh events again"
        ) from error


def rows_of_ranges(
    groups: Sequence[RowGroup], ranges: Sequence[UserRange], columns: Sequence[str], numbers: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The rows of the ranges that are asked for.

    Args:
        numbers: batches with a column ``id``, places in ``ranges``.
    """
    for batch in numbers:
        for number in batch.column("id").to_pylist():
            yield from rows_of_range(groups, ranges[number], columns)
