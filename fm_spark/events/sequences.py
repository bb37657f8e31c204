"""User histories out of the events table, as packed arrays: in a task, one block of users after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fm_spark.core.context import NO_CONTEXT, Context, ContextFields
from fm_spark.core.sequences import PARTS, Sequences
from fm_spark.core.time_fields import time_rows
from fm_spark.events.user_columns import ATTRIBUTES, user_features

COLUMNS = ["user_id", "item_feature", "label", "weight", "split"]
VALUE = "value"
"""Read beside :data:`COLUMNS` where the ratings are wanted."""
TIME = "micros"
"""Read where there are fields of time: microseconds since 1970 UTC."""


def ordered_events(
    events: DataFrame, partitions: int, values: bool = False, context: ContextFields = NO_CONTEXT
) -> DataFrame:
    """The columns of :data:`COLUMNS`, every user whole in one partition, in the order of his history.

    Args:
        events: the events table, with :func:`~fm_spark.events.user_columns.with_attributes` where users have fields.
        values: with :data:`VALUE`, the ratings.
        context: with the columns that these fields need.
    """
    columns = [F.col(name) for name in ([*COLUMNS, VALUE] if values else COLUMNS)]
    ordered = events.repartition(partitions, F.col("user_id")).sortWithinPartitions("user_id", "position")
    return ordered.select(*columns, *context_columns(context))


def context_columns(context: ContextFields) -> list[Column]:
    """The columns of events that :func:`pack` makes the context fields from."""
    of_time = [F.unix_micros("time").alias(TIME)] if context.time else []
    return of_time + ([F.col(ATTRIBUTES)] if context.user else [])


def sequences_from_arrow(
    batches: Iterable[pa.RecordBatch],
    feature_to_item: npt.NDArray[np.int32],
    max_events: int = 1_000_000,
    context: ContextFields = NO_CONTEXT,
) -> Iterator[Sequences]:
    """Packs the rows of :func:`ordered_events`, as ``mapInArrow`` delivers them, into blocks of whole users.

    Args:
        batches: Arrow record batches with :data:`COLUMNS`; users contiguous, also across batches.
        feature_to_item: int32 [n_features], see :class:`~fm_spark.events.catalogue.Catalogue`.
        max_events: a block is closed once it holds this many events (a longer user makes a longer block).
        context: the fields that the sequences are to hold.
    """
    for table in whole_users(batches, max_events):
        yield pack(table, feature_to_item, context)


def whole_users(batches: Iterable[pa.RecordBatch], max_rows: int) -> Iterator[pa.Table]:
    """Rows by ``user_id``, users contiguous, cut into tables of whole users; see :func:`sequences_from_arrow`."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        size += batch.num_rows
        if size >= max_rows:
            table = pa.Table.from_batches(held).combine_chunks()
            cut = _last_user_start(table["user_id"])
            if cut > 0:
                yield table.slice(0, cut)
                held = table.slice(cut).to_batches()
                size = table.num_rows - cut
    if size:
        yield pa.Table.from_batches(held).combine_chunks()


def _last_user_start(user: pa.ChunkedArray) -> int:
    return int(pc.index(user, user[-1]).as_py())


def pack(table: pa.Table, feature_to_item: npt.NDArray[np.int32], context: ContextFields = NO_CONTEXT) -> Sequences:
    """One block out of rows with :data:`COLUMNS`, users contiguous and in the order of their whole histories.

    Without the columns weight and split every event weighs 1 and is of the training part.
    The ratings are packed when there is a column :data:`VALUE`, the context when there are fields.
    """
    names = table.column_names
    user = table["user_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.empty(0, np.int64)
    return Sequences(
        user=user[starts],
        ptr=np.append(starts, len(user)).astype(np.int64),
        item=feature_to_item[table["item_feature"].to_numpy()],
        liked=(table["label"].to_numpy() > 0).astype(np.uint8),
        weight=table["weight"].to_numpy().astype(np.float32) if "weight" in names else np.ones(len(user), np.float32),
        part=_parts(table["split"]) if "split" in names else np.zeros(len(user), np.uint8),
        value=table[VALUE].to_numpy().astype(np.float32) if VALUE in names else None,
        context=_context(table, starts, context) if context.n_rows else None,
    )


def _parts(split: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    encoded = split.combine_chunks().dictionary_encode()
    code = np.array([PARTS[name.as_py()] for name in encoded.dictionary], dtype=np.uint8)
    parts: npt.NDArray[np.uint8] = code[encoded.indices.to_numpy()]
    return parts


def _context(table: pa.Table, starts: npt.NDArray[np.int64], fields: ContextFields) -> Context:
    n_events = table.num_rows
    time = np.empty((n_events, 0), np.int32)
    if fields.time:
        moment = table[TIME].to_numpy()
        time = time_rows(fields, moment, np.repeat(moment[starts], np.diff(starts, append=n_events)))
    attributes = table[ATTRIBUTES].take(pa.array(starts)) if fields.user else None
    return Context(time, user_features(attributes, fields, len(starts)))
