"""The proof that keys occur once, for rows that are made in the order of their table, too many to be looked at twice.

A task that makes rows passes its batches through :func:`ascending`. That proves that no key occurs twice in what one
task makes. That no key is made by two tasks is the writer's to see to: Spark's ``repartition`` and
``repartitionByRange`` by a column of the key do, where a task makes rows of nothing but what it was given.

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fm_spark.errors import TableError


def ascending(batches: Iterable[pa.RecordBatch], key: Sequence[str], table: str) -> Iterator[pa.RecordBatch]:
    """Passes the batches on as long as their rows ascend strictly by the key, also from batch to batch.

    Args:
        batches: of one task; text is compared by its bytes, as Spark does.
        key: columns of the key that are not the same in all rows, in the order of the rows.
        table: named in the message.

    Raises:
        TableError: two rows have the same key, or a row comes before one that it should follow; the message has up to
            five of the keys.

    Example:
        >>> made = pa.RecordBatch.from_pydict({"user_id": [1, 1, 2], "rank": [1, 2, 1]})
        >>> [batch.num_rows for batch in ascending([made], ("user_id", "rank"), "top_n")]
        [3]
    """
    last: list[pa.Array] = []
    for batch in batches:
        if batch.num_rows:
            columns = [_plain(batch.column(name)) for name in key]
            # the last row of the batch before stands in front of the first one of this batch
            joined = [pa.concat_arrays(pair) for pair in zip(last, columns, strict=True)] if last else columns
            wrong = np.flatnonzero(~_ascends(joined))
            if len(wrong):
                raise TableError(_message(joined, wrong, key, table))
            last = [column.slice(len(column) - 1) for column in columns]
        yield batch


def _ascends(columns: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    """Whether each row but the first comes after the one before it; false where a value is missing."""
    after = np.zeros(len(columns[0]) - 1, bool)
    equal = ~after
    for column in columns:
        before, now = column.slice(0, len(column) - 1), column.slice(1)
        after |= equal & _met(pc.less(before, now))
        equal &= _met(pc.equal(before, now))
    return after


def _met(condition: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(condition, False).to_numpy(zero_copy_only=False), bool)


def _plain(column: pa.Array) -> pa.Array:
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    # bytes and not the letters of a language
    return column.cast(pa.binary()) if pa.types.is_string(column.type) else column


def _message(columns: Sequence[pa.Array], wrong: npt.NDArray[np.intp], key: Sequence[str], table: str) -> str:
    def shown(row: int) -> str:
        values = (column[row].as_py() for column in columns)
        return f"({', '.join(v.decode() if isinstance(v, bytes) else str(v) for v in values)})"

    pairs = ", ".join(f"{shown(row + 1)} after {shown(row)}" for row in wrong[:5].tolist())
    return (
        f"table {table}: nothing was written, because {len(wrong):,} rows do not follow the one before them by "
        f"{', '.join(key)}: {pairs}"
    )
