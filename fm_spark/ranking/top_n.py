"""The best items of every user, exactly, as rows of the ``top_n`` table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.core.context import ContextFields
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import Sequences
from fm_spark.core.topk import Items, prepare_items, top_n, user_items
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks

SOURCE = "model"


class _Shared(NamedTuple):
    """What every task needs; sent once."""

    machine: Ranker
    context: ContextFields
    items: Items
    feature_to_item: npt.NDArray[np.int32]
    item_id: pa.Array
    title: pa.Array


@contextmanager
def top_n_rows(
    events: DataFrame,
    machine: Ranker,
    catalogue: Catalogue,
    n: int,
    exclude_seen: bool = True,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Iterator[DataFrame]:
    """The lists of all users: user_id, rank, item_id, title, score; to be used inside the ``with`` block.

    Users are ranked in blocks, so the memory of a task does not grow with the number of users. Every item of the
    catalogue can be recommended, also one without events. Fields of time are those of the newest event, for everybody.

    Args:
        events: the ``events`` table; the queries come from all events in it.
        n: length of the lists; a user with fewer items left gets a shorter list, or none.
        exclude_seen: leave out the items that the user has an event with.
        allowed: bool [n_items], the items that may be recommended; ``None`` allows all.
    """
    context = as_of_newest(machine.context, events)
    shared = _Shared(
        machine,
        context,
        prepare_items(machine.item_factors, machine.item_bias, allowed),
        catalogue.feature_to_item,
        pa.array(catalogue.item_id),
        pa.array(catalogue.title, pa.string()),
    )
    types = {field.name: field.dataType for field in events.schema}
    schema = T.StructType(
        [
            T.StructField("user_id", types["user_id"]),
            T.StructField("rank", T.IntegerType()),
            T.StructField("item_id", types["item_id"]),
            T.StructField("title", T.StringType()),
            T.StructField("score", T.DoubleType()),
        ]
    )
    spark = events.sparkSession
    ordered = ordered_events(events, partitions_for(spark, catalogue), context=context)
    with broadcast(spark, shared) as sent:
        yield ordered.mapInArrow(partial(_lists, sent, n, exclude_seen), schema)


def as_of_newest(context: ContextFields, events: DataFrame) -> ContextFields:
    """The fields as of the time of the newest event."""
    if not context.time:
        return context
    newest = events.agg(F.max(F.unix_micros("time")).alias("newest")).collect()[0]["newest"]
    return context._replace(as_of=newest)


def _lists(
    sent: Broadcast[_Shared], n: int, exclude_seen: bool, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    for block in user_blocks(batches, shared.feature_to_item, shared.context):
        yield _block_lists(shared, n, exclude_seen, block)


def _block_lists(shared: _Shared, n: int, exclude_seen: bool, block: Sequences) -> pa.RecordBatch:
    seen = user_items(block.ptr, block.item) if exclude_seen else None
    best = top_n(shared.items, user_queries(block, shared.machine, block), n, seen)
    user, place = np.nonzero(best.item >= 0)
    item = pa.array(best.item[user, place])
    return pa.RecordBatch.from_arrays(
        [
            pa.array(block.user).take(pa.array(user)),
            pa.array((place + 1).astype(np.int32)),
            shared.item_id.take(item),
            shared.title.take(item),
            pa.array(best.score[user, place]),
        ],
        names=["user_id", "rank", "item_id", "title", "score"],
    )
