"""The best items of every user, exactly, as rows of the ``top_n`` table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from fm_spark.core.topk import Items, TopN, prepare_items
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks
from fm_spark.ranking.list_rules import ListMaker, ListRule

SOURCE = "model"


class _Shared(NamedTuple):
    """What every task needs; sent once."""

    machine: Ranker
    context: ContextFields
    items: Items
    lists: tuple[ListRule, ...]
    feature_to_item: npt.NDArray[np.int32]
    item_id: pa.Array
    title: pa.Array


@contextmanager
def top_n_rows(
    events: DataFrame,
    machine: Ranker,
    catalogue: Catalogue,
    lists: Sequence[ListRule],
) -> Iterator[DataFrame]:
    """The lists of all users: list_name, user_id, rank, item_id, title, score; to be used inside the ``with`` block.

    Users are ranked in blocks, so the memory of a task does not grow with the number of users; all lists are made in
    one pass over them. Every item of the catalogue can be recommended, also one without events. Fields of time are
    those of the newest event, for everybody.

    Args:
        events: the ``events`` table; the queries come from all events in it.
        lists: from :func:`fm_spark.ranking.list_rules.list_rules`; a user for whom fewer items are left gets a
            shorter list, or none.
    """
    context = as_of_newest(machine.context, events)
    shared = _Shared(
        machine,
        context,
        prepare_items(machine.item_factors, machine.item_bias),
        tuple(lists),
        catalogue.feature_to_item,
        pa.array(catalogue.item_id),
        pa.array(catalogue.title, pa.string()),
    )
    types = {field.name: field.dataType for field in events.schema}
    schema = T.StructType(
        [
            T.StructField("list_name", T.StringType()),
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
        yield ordered.mapInArrow(partial(_lists, sent), schema)


def as_of_newest(context: ContextFields, events: DataFrame) -> ContextFields:
    """The fields as of the time of the newest event."""
    if not context.time:
        return context
    newest = events.agg(F.max(F.unix_micros("time")).alias("newest")).collect()[0]["newest"]
    return context._replace(as_of=newest)


def _lists(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    maker = ListMaker(shared.items)
    for block in user_blocks(batches, shared.feature_to_item, shared.context):
        queries = user_queries(block, shared.machine, block)
        for rule in shared.lists:
            yield _rows(shared, rule.name, block, maker.lists(rule, block, queries))


def _rows(shared: _Shared, name: str, block: Sequences, best: TopN) -> pa.RecordBatch:
    user, place = np.nonzero(best.item >= 0)
    item = pa.array(best.item[user, place])
    columns = {
        "list_name": pa.repeat(name, len(user)),
        "user_id": pa.array(block.user).take(pa.array(user)),
        "rank": pa.array((place + 1).astype(np.int32)),
        "item_id": shared.item_id.take(item),
        "title": shared.title.take(item),
        "score": pa.array(best.score[user, place]),
    }
    return pa.RecordBatch.from_pydict(columns)
