"""Ranking metrics of the machine and of popularity on the held-out test part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from fm_spark.core.item_scores import Items, prepare_items, user_items
from fm_spark.core.metrics import MetricSums, no_users, rank_metrics
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import TEST, TRAIN, select
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks

FM, POPULARITY = "fm", "popularity"
RANKERS = (FM, POPULARITY)
_SCHEMA = "ranker string, sums array<bigint>, users bigint, users_without_truth bigint, covered binary"
_ARROW_SCHEMA = pa.schema(
    [
        ("ranker", pa.string()),
        ("sums", pa.list_(pa.int64())),
        ("users", pa.int64()),
        ("users_without_truth", pa.int64()),
        ("covered", pa.binary()),
    ]
)


class _Shared(NamedTuple):
    """What every task needs; sent once."""

    machine: Ranker
    items: Items
    popular: Items
    feature_to_item: npt.NDArray[np.int32]


def rank_test_part(events: DataFrame, machine: Ranker, catalogue: Catalogue) -> dict[str, MetricSums]:
    """Ranks the catalogue for every user with held-out events, by the machine and by popularity.

    A user's query comes from his training events and the time of his first test event; the items of his
    training events are masked, his test events are the truth. The result has the same bits whatever the partitions.

    Args:
        events: the ``events`` table with its splits.
        machine: fitted on the training part only.

    Returns:
        The sums of each of :data:`RANKERS`.
    """
    spark = events.sparkSession
    shared = _Shared(
        machine,
        prepare_items(machine.item_factors, machine.item_bias),
        popularity_items(training_likes(events, catalogue)),
        catalogue.feature_to_item,
    )
    with broadcast(spark, shared) as sent:
        ordered = ordered_events(events, partitions_for(spark, catalogue), context=machine.context)
        rows = ordered.mapInArrow(partial(_measure, sent), _SCHEMA).collect()  # one row a task and ranker
    totals = {ranker: no_users(catalogue.n_items) for ranker in RANKERS}
    for row in rows:
        totals[row["ranker"]] = totals[row["ranker"]].merge(_sums_of(row, catalogue.n_items))
    return totals


def training_likes(events: DataFrame, catalogue: Catalogue) -> npt.NDArray[np.int64]:
    """Liked training events of every item, int64 [n_items]."""
    likes = np.zeros(catalogue.n_items, dtype=np.int64)
    liked = events.where((F.col("split") == "train") & (F.col("label") > 0))
    for row in liked.groupBy("item_feature").count().collect():
        likes[catalogue.feature_to_item[row["item_feature"]]] = row["count"]
    return likes


def popularity_items(count: npt.NDArray[np.int64]) -> Items:
    """A ranker that gives everybody the items by (count descending, item index ascending).

    Args:
        count: int64 [n_items]; the score is minus the place in that order, exact in float32 up to 16 M items.
    """
    order = np.lexsort((np.arange(len(count)), -count))
    bias = np.empty(len(count), dtype=np.float32)
    bias[order] = -np.arange(len(count), dtype=np.float32)
    return prepare_items(np.zeros((len(count), 1), dtype=np.float32), bias)


def _measure(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    totals = {ranker: no_users(shared.items.n_items) for ranker in RANKERS}
    for block in user_blocks(batches, shared.feature_to_item, shared.machine.context):
        training = block.part == TRAIN
        seen = user_items(block.ptr, block.item, training)
        truth = user_items(block.ptr, block.item, block.part == TEST)
        held = select(block, block.part == TEST)
        queries = user_queries(select(block, training), shared.machine, held)
        totals[FM] = totals[FM].merge(rank_metrics(shared.items, queries, seen, truth))
        nothing = np.zeros((block.n_users, 1), dtype=np.float32)
        totals[POPULARITY] = totals[POPULARITY].merge(rank_metrics(shared.popular, nothing, seen, truth))
    rows = [
        (ranker, sums.sums.tolist(), sums.users, sums.users_without_truth, np.packbits(sums.covered).tobytes())
        for ranker, sums in totals.items()
    ]
    yield pa.RecordBatch.from_pylist([dict(zip(_ARROW_SCHEMA.names, row, strict=True)) for row in rows], _ARROW_SCHEMA)


def _sums_of(row: Row, n_items: int) -> MetricSums:
    covered = np.unpackbits(np.frombuffer(row["covered"], dtype=np.uint8), count=n_items).astype(np.bool_)
    return MetricSums(np.array(row["sums"], dtype=np.int64), row["users"], row["users_without_truth"], covered)
