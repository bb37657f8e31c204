"""Pairs a second of one core: what a task of ``score`` and the classes of ``evaluate`` spend without Spark.

    .venv/bin/python -m benchmarks.pairs

A made-up machine of 62,423 items, 10,000 users of 150 events each, 100 pairs a user; best of three.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from benchmarks.clock import seconds_of
from fm_spark.core.knn_classes import class_votes, unit_rows
from fm_spark.core.machine import Machine
from fm_spark.core.sequences import Sequences
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.pair_answers import answers, prepare

N_ITEMS, N_USERS, N_EVENTS, N_PAIRS, K = 62_423, 10_000, 150, 100, 64
CLASSES = np.arange(1, 11) / 2


def main() -> None:
    """Prints one row a task."""
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((N_ITEMS, K), dtype=np.float32)
    history = rng.standard_normal((2, 2, N_ITEMS, K), dtype=np.float32)
    machine = Machine(np.array([0.8, 0.98]), history, factors, np.zeros(N_ITEMS, np.float32))
    place = np.arange(N_ITEMS, dtype=np.int32)
    blank = [""] * N_ITEMS
    catalogue = Catalogue(
        place.astype(np.int64),
        np.array(blank, object),
        [[] for _ in blank],
        np.ones(N_ITEMS, np.int64),
        place,
        place,
        [None] * N_ITEMS,
        [{}] * N_ITEMS,
    )
    shared = prepare(machine, catalogue, np.ones(N_ITEMS, np.bool_))
    n = N_PAIRS + N_EVENTS
    is_pair = np.tile(np.arange(n) < N_PAIRS, N_USERS)
    item = rng.integers(0, N_ITEMS, n * N_USERS)
    ones = np.ones(len(item))
    table = pa.table(
        {
            "user_id": np.repeat(np.arange(N_USERS), n),
            "_item": pa.array(item, mask=~is_pair),
            "item_feature": pa.array(item.astype(np.int32), mask=is_pair),
            "label": ones,
            "value": ones,
            "_same": ones > 0,
            "user_attributes": pa.nulls(len(item), pa.map_(pa.string(), pa.list_(pa.string()))),
        }
    )
    asked, known = _sequences(item[is_pair], N_PAIRS), _sequences(item[~is_pair], N_EVENTS)
    vectors = unit_rows(factors)
    tasks: dict[str, Callable[[], object]] = {
        "score": lambda: answers(table, is_pair, shared),
        "class by 20 neighbours": lambda: class_votes(vectors, known, CLASSES, asked, 20),
    }
    pairs = N_USERS * N_PAIRS
    print(f"{pairs:,} pairs of {N_USERS:,} users with {N_EVENTS} events each, k = {K}")
    for name, task in tasks.items():
        seconds = min(seconds_of(task) for _ in range(3))
        print(f"{name:<24} {seconds:6.2f} s {pairs / seconds:12,.0f} pairs/s")


def _sequences(item: np.ndarray, each: int) -> Sequences:
    n = len(item)
    value = CLASSES[item % len(CLASSES)].astype(np.float32)
    ptr = np.arange(0, n + 1, each, dtype=np.int64)
    zeros = np.zeros(n, np.uint8)
    return Sequences(np.arange(N_USERS), ptr, item.astype(np.int32), zeros, np.ones(n, np.float32), zeros, value)


if __name__ == "__main__":
    main()
