"""What changed between the lists of two publications, exactly, in memory that does not grow with the users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fm_spark.errors import TableError
from fm_spark.tables.handle import Handle

CHANGES = ("inserted", "deleted", "moved")
"""What may have happened to an item of a list: it is new, it is gone, or its rank is another."""

Lists = tuple[Handle, pc.Expression]
"""A table ``top_n`` and the condition for the rows of one run."""

ONLY_LIST = "default"
"""Name of the one list that users have without ``recommend.lists``, and had before there were named lists."""

_KEY = ["user_id", "list_name", "item_id"]
_SAMPLES = 16  # a range


def changed_rows(before: Lists, after: Lists, rows: int) -> pa.RecordBatchReader:
    """The differences, range of users by range of users, in their order.

    The ranges come from a sample of the user ids of both runs. Files are laid out by user, so a range reads few of
    them; were they laid out otherwise, the result would be the same and take longer.

    Args:
        rows: about how many rows of either run are compared at a time.

    Raises:
        TableError: an id has another type in the two runs.
    """
    types = {name: _type(before, after, name) for name in ("user_id", "item_id")}
    schema = pa.schema(
        [
            ("user_id", types["user_id"]),
            ("list_name", pa.string()),
            ("change", pa.string()),
            ("item_id", types["item_id"]),
            ("rank_before", pa.int32()),
            ("rank_after", pa.int32()),
        ]
    )
    return pa.RecordBatchReader.from_batches(schema, _compared(before, after, rows, schema))


def _compared(before: Lists, after: Lists, rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for users in _ranges(before, after, rows):
        both = _ranks(before, users, "rank_before").join(_ranks(after, users, "rank_after"), _KEY, None, "full outer")
        yield from _differences(both).select(schema.names).cast(schema).to_batches()


def _ranks(lists: Lists, users: pc.Expression | None, name: str) -> pa.Table:
    """The columns of the key, and the rank under another name."""
    handle, own = lists
    named = "list_name" in handle.schema.names
    wanted = ["user_id", "item_id", "rank", *(["list_name"] if named else [])]
    found = handle.read(wanted, own if users is None else own & users)
    lists_of = found["list_name"] if named else pa.nulls(found.num_rows, pa.string())
    columns = [found["user_id"], pc.fill_null(lists_of, ONLY_LIST), found["item_id"], found["rank"]]
    return pa.table(columns, names=[*_KEY, name])


def _differences(both: pa.Table) -> pa.Table:
    was, is_ = both["rank_before"], both["rank_after"]
    change = pc.if_else(pc.is_null(was), CHANGES[0], pc.if_else(pc.is_null(is_), CHANGES[1], CHANGES[2]))
    both = both.append_column("change", change).append_column("place", pc.coalesce(is_, was))
    # of an item that is in one list only the comparison is null, and it counts
    changed = both.filter(pc.fill_null(pc.not_equal(was, is_), True))
    by = ["user_id", "list_name", "place", "change", "item_id"]
    return changed.sort_by([(name, "ascending") for name in by])


def _ranges(before: Lists, after: Lists, rows: int) -> Iterator[pc.Expression | None]:
    """Conditions on user_id that cut the users of both runs into ranges of about so many rows, ascending."""
    user = pc.field("user_id")
    cuts = _cuts(before, after, rows)
    for low, high in zip([None, *cuts], [*cuts, None], strict=True):
        above = None if low is None else user >= low
        below = None if high is None else user < high
        yield above & below if above is not None and below is not None else above if below is None else below


def _cuts(before: Lists, after: Lists, rows: int) -> list[pa.Scalar]:
    """User ids, ascending, between each two of which the larger run has about so many rows."""
    every = max(rows // _SAMPLES, 1)
    cuts = pa.array([], _type(before, after, "user_id"))
    for handle, own in (before, after):
        samples = []
        seen = 0
        for batch in handle.batches(["user_id"], own):
            samples.append(batch.column(0).take(np.arange(-seen % every, batch.num_rows, every)))
            seen += batch.num_rows
        if samples:
            ordered = pa.chunked_array(samples).sort()
            cuts = pa.concat_arrays([cuts, ordered.take(np.arange(_SAMPLES, len(ordered), _SAMPLES)).combine_chunks()])
    return list(cuts.unique().sort())


def _type(before: Lists, after: Lists, name: str) -> pa.DataType:
    was, is_ = (lists[0].schema.field(name).type for lists in (before, after))
    if was != is_:
        raise TableError(
            f"{name} of {after[0].location} is {is_} now and was {was} in the earlier publication; such lists cannot "
            "be compared"
        )
    return is_
