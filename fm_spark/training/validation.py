"""Metrics on the validation part, from the packed blocks: of rankings, and of predictions of single events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark import RDD, Broadcast, SparkContext

from fm_spark.core.fm_machine import FmMachine, fm_predictions
from fm_spark.core.item_scores import Items, prepare_items, user_items
from fm_spark.core.metrics import MetricSums, no_users, rank_metrics
from fm_spark.core.prediction_metrics import LabelSums, RatingSums, label_sums, rating_sums
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import TEST, TRAIN, Sequences, select, take_users
from fm_spark.training.blocks import Block

_USERS_AT_ONCE = 2048


def validation_metrics(
    sc: SparkContext, blocks: list[RDD[Block]], machine: Ranker, share: float
) -> dict[str, float] | None:
    """Ranks the catalogue for validation users and compares with the held tail of their training part.

    Args:
        share: share of the users to rank, chosen by the hash of their ids.

    Returns:
        Metric -> mean over users, or None when no user has a validation part.
    """
    items = prepare_items(machine.item_factors, machine.item_bias)
    sent = sc.broadcast((machine, items))
    try:
        rdd = blocks[0] if len(blocks) == 1 else sc.union(blocks)
        total = rdd.mapPartitions(partial(_measure, sent, share)).treeAggregate(None, _merge_sums, _merge_sums, 2)
    finally:
        sent.destroy()
    return total.means() if total is not None and total.users else None


def _measure(sent: Broadcast[tuple[Ranker, Items]], share: float, blocks: Iterator[Block]) -> Iterator[MetricSums]:
    machine, items = sent.value
    total = no_users(len(machine.item_bias))
    some = False
    for block in blocks:
        some = True
        users = _chosen(block.sequences, share)
        sequences = _by_row(block)
        known = select(sequences, block.validation == TRAIN)
        held = select(sequences, block.validation == TEST)
        for begin in range(0, len(users), _USERS_AT_ONCE):
            few = users[begin : begin + _USERS_AT_ONCE]
            seen, truth = take_users(known, few), take_users(held, few)
            total = total.merge(
                rank_metrics(
                    items,
                    user_queries(seen, machine, truth),
                    user_items(seen.ptr, seen.item, np.ones(len(seen.item), np.bool_)),
                    user_items(truth.ptr, truth.item, np.ones(len(truth.item), np.bool_)),
                )
            )
    if some:
        yield total


def _chosen(sequences: Sequences, share: float) -> npt.NDArray[np.int64]:
    # the low bits of the hash dealt users to blocks; the high bits are free
    place = (sequences.user.astype(np.int64) >> 32) & 0xFFFF
    return np.flatnonzero(place < share * 0x10000)


def _by_row(block: Block) -> Sequences:
    """The block's sequences; users that are features go by their rows."""
    return block.sequences if block.row is None else block.sequences._replace(user=block.row.astype(np.int64))


def prediction_metrics(sc: SparkContext, blocks: list[RDD[Block]], machine: FmMachine) -> dict[str, float] | None:
    """Predicts every event of the validation users' tails, liked or not, from what came before.

    Args:
        machine: users go by their rows.

    Returns:
        Metrics of ratings or of probabilities (:mod:`fm_spark.core.prediction_metrics`), or None without a tail; a
        metric that the tail does not define is left out.
    """
    sent = sc.broadcast(machine)
    try:
        rdd = blocks[0] if len(blocks) == 1 else sc.union(blocks)
        total = rdd.map(partial(_errors, sent)).treeAggregate(None, _merge_sums, _merge_sums, 2)
    finally:
        sent.destroy()
    if total is None or not total.events:
        return None
    return {name: value for name, value in total.means().items() if np.isfinite(value)}


def _errors(sent: Broadcast[FmMachine], block: Block) -> RatingSums | LabelSums:
    sequences = _by_row(block)
    known = select(sequences, block.validation == TRAIN)
    tail = select(sequences, (sequences.part == TRAIN) & (block.validation != TRAIN))
    predicted = fm_predictions(tail, known, sent.value)
    if sent.value.loss == "squared" and tail.value is not None:
        return rating_sums(predicted, tail.value)
    return label_sums(predicted, tail.liked)


def _merge_sums(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a.merge(b)
