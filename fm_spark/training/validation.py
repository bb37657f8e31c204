"""Ranking metrics on the validation part, from the packed blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from pyspark import RDD, Broadcast, SparkContext

from fm_spark.core.machine import Machine
from fm_spark.core.metrics import MetricSums, no_users, rank_metrics
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import TEST, Sequences, select, take_users
from fm_spark.core.topk import Items, prepare_items, user_items
from fm_spark.training.blocks import Block

_USERS_AT_ONCE = 2048


def validation_metrics(
    sc: SparkContext, blocks: list[RDD[Block]], machine: Machine, share: float
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
        total = rdd.mapPartitions(partial(_measure, sent, share)).treeAggregate(None, _merge, _merge, 2)
    finally:
        sent.destroy()
    return total.means() if total is not None and total.users else None


def _merge(a: MetricSums | None, b: MetricSums | None) -> MetricSums | None:
    if a is None or b is None:
        return b if a is None else a
    return a.merge(b)


def _measure(sent: Broadcast[tuple[Machine, Items]], share: float, blocks: Iterator[Block]) -> Iterator[MetricSums]:
    machine, items = sent.value
    total = no_users(len(machine.item_bias))
    some = False
    for block in blocks:
        some = True
        users = _chosen(block.sequences, share)
        known = select(block.sequences, block.validation == 0)
        held = select(block.sequences, block.validation == TEST)
        for begin in range(0, len(users), _USERS_AT_ONCE):
            few = users[begin : begin + _USERS_AT_ONCE]
            seen, truth = take_users(known, few), take_users(held, few)
            total = total.merge(
                rank_metrics(
                    items,
                    user_queries(seen, machine),
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
