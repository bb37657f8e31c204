"""User histories out of the events table, as packed arrays: in a task, one block of users after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.core.sequences import PARTS, Sequences

COLUMNS = ["user_id", "item_feature", "label", "weight", "split"]
VALUE = "value"
"""Read beside :data:`COLUMNS` where the ratings are wanted."""


def ordered_events(events: DataFrame, partitions: int, values: bool = False) -> DataFrame:
    """The columns of :data:`COLUMNS`, every user whole in one partition, in the order of his history.

    Args:
        values: with :data:`VALUE`, the ratings.
    """
    columns = [*COLUMNS, VALUE] if values else COLUMNS
    return events.repartition(partitions, F.col("user_id")).sortWithinPartitions("user_id", "position").select(*columns)


def sequences_from_arrow(
    batches: Iterable[pa.RecordBatch], feature_to_item: npt.NDArray[np.int32], max_events: int = 1_000_000
) -> Iterator[Sequences]:
    """Packs the rows of :func:`ordered_events`, as ``mapInArrow`` delivers them, into blocks of whole users.

    Args:
        batches: Arrow record batches with :data:`COLUMNS`; users contiguous, also across batches.
        feature_to_item: int32 [n_features], see :class:`~fm_spark.events.catalogue.Catalogue`.
        max_events: a block is closed once it holds this many events (a longer user makes a longer block).
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        size += batch.num_rows
        if size >= max_events:
            table = pa.Table.from_batches(held).combine_chunks()
            cut = _last_user_start(table["user_id"])
            if cut > 0:
                yield pack(table.slice(0, cut), feature_to_item)
                held = table.slice(cut).to_batches()
                size = table.num_rows - cut
    if size:
        yield pack(pa.Table.from_batches(held).combine_chunks(), feature_to_item)


def _last_user_start(user: pa.ChunkedArray) -> int:
    return int(pc.index(user, user[-1]).as_py())


def pack(table: pa.Table, feature_to_item: npt.NDArray[np.int32]) -> Sequences:
    """One block out of rows with :data:`COLUMNS`, users contiguous and in the order of their histories.

    The ratings are packed when there is a column :data:`VALUE`.
    """
    user = table["user_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.empty(0, np.int64)
    split = table["split"].combine_chunks().dictionary_encode()
    code = np.array([PARTS[name.as_py()] for name in split.dictionary], dtype=np.uint8)
    return Sequences(
        user=user[starts],
        ptr=np.append(starts, len(user)).astype(np.int64),
        item=feature_to_item[table["item_feature"].to_numpy()],
        liked=(table["label"].to_numpy() > 0).astype(np.uint8),
        weight=table["weight"].to_numpy().astype(np.float32),
        part=code[split.indices.to_numpy()],
        value=table[VALUE].to_numpy().astype(np.float32) if VALUE in table.column_names else None,
    )
