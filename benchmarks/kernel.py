"""Times the training kernels on one core: events a second, and the constants that the planner counts with.

    python -m benchmarks.kernel [--users 150] [--events 154] [--items 62423] [--k 64] [--negatives 256] [--batch 1024]

One block of one round at the shape of MovieLens 25M: users with a long tail of history lengths, half of their events
liked, Zipf-like items. Seconds are those of the calling thread's processor, so that other load on the machine
counts little; best of nine.
"""

from __future__ import annotations

import argparse
import os
import pickle
import time
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

# before numpy is loaded: one core is what a Spark task has
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from fm_spark.core import planner, ranker_cost
from fm_spark.core.combine import Accumulator, adaptive_sum, merge, on_grid
from fm_spark.core.gradient import Settings, Workspace, make_sampler
from fm_spark.core.local_steps import Move, run_block
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.sequences import Sequences
from fm_spark.core.softmax import softmax_gradient

DECAYS = (0.3, 0.8, 0.98)


def main() -> None:
    """Entry point."""
    a = _arguments()
    wide, narrow = _measure(a, a.k), _measure(a, max(1, a.k // 4))
    print(f"softmax, k = {a.k}, S = {a.negatives}, three bags, minibatch {a.batch}, {a.items:,} items, one core")
    print(
        f"{wide.positives:,} positives of {a.users:,} users in {wide.block:.3f} s: "
        f"{wide.positives / wide.block:,.0f} positives/s, {wide.events / wide.block:,.0f} events/s"
    )
    factors = wide.k - narrow.k
    pairs, scanned = wide.positives * a.negatives, wide.scanned
    product = (wide.softmax - narrow.softmax) / factors / pairs
    scan_factor = (wide.history - narrow.history) / factors / scanned
    print(f"{'per':<44}{'seconds':>10}{'in planner':>12}")
    for name, measured, used in (
        ("positive x negative", wide.softmax / pairs - a.k * product, ranker_cost.SECONDS_PER_PAIR),
        ("positive x negative x k", product, ranker_cost.SECONDS_PER_PRODUCT),
        ("event scanned", wide.history / scanned - a.k * scan_factor, ranker_cost.SECONDS_PER_SCAN),
        ("event scanned x k", scan_factor, ranker_cost.SECONDS_PER_SCAN_FACTOR),
        ("row that a block touched x k, to the grid", wide.grid / (wide.rows * a.k), planner.SECONDS_PER_GRID),
        ("row that is added in the task x k", wide.add / (wide.rows * a.k), planner.SECONDS_PER_ADD),
        ("row that is applied x k", wide.step / (wide.rows * a.k), planner.SECONDS_PER_STEP),
        ("byte broadcast, pickled and back", wide.sent / wide.parameter_bytes, planner.SECONDS_PER_BYTE_SENT),
        ("byte returned, pickled, back and added", wide.summed / wide.sum_bytes, planner.SECONDS_PER_BYTE_SUMMED),
    ):
        print(f"{name:<44}{measured:>10.2e}{used:>12.2e}")
    from benchmarks import event_kernel  # it takes the synthetic block from here

    event_kernel.table()


class Measured(NamedTuple):
    """Seconds of the parts of one block at one k, and the units that they are divided by."""

    k: int
    events: int
    positives: int
    scanned: float
    rows: int
    block: float
    softmax: float
    history: float
    grid: float
    add: float
    sent: float
    summed: float
    step: float
    parameter_bytes: int
    sum_bytes: int


def _measure(a: argparse.Namespace, k: int) -> Measured:
    sequences, count = synthetic_block(a.users, a.events, a.items)
    settings = Settings(DECAYS, 0.1, 0.05, 0.0, a.batch, a.negatives, 0.7)
    parameters = init_parameters(len(DECAYS), count, k, 0.05, 1)
    events, positives = len(sequences.item), int(sequences.liked.sum())
    length = np.diff(sequences.ptr).astype(float)
    mean_seen = float(np.square(length).sum() / length.sum())
    scanned = sum(ranker_cost.scanned_events(d, events, positives, mean_seen, settings.chunk_size) for d in DECAYS)
    block, move = _block(parameters, sequences, settings, count)
    softmax = _softmax(k, a.items, a.negatives, a.batch) * positives / a.batch
    one = on_grid(move, parameters)
    sums = Accumulator(parameters.factors.shape, parameters.n_items)
    return Measured(
        k,
        events,
        positives,
        scanned,
        len(move.rows),
        block,
        softmax,
        block - softmax,
        _seconds(lambda: on_grid(move, parameters)),
        _seconds(lambda: (sums.add(one), sums.take())),
        _seconds(lambda: pickle.loads(pickle.dumps(parameters, protocol=5))),
        _seconds(lambda: merge(pickle.loads(pickle.dumps(one, protocol=5)), one)),
        _seconds(lambda: adaptive_sum(parameters, one, 2, 0.5)),
        parameters.nbytes(),
        one.nbytes(),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("users", 150),
        ("events", 154),
        ("items", 62_423),
        ("k", 64),
        ("negatives", 256),
        ("batch", 1024),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def synthetic_block(n_users: int, mean_events: int, n_items: int) -> tuple[Sequences, np.ndarray]:
    """Users like those of MovieLens 25M, and int64 [n_items], positives of each item in the whole data.

    Histories have at least 20 events and log-normal lengths, one user for each quantile: half of the users have half
    of the mean and fewer, and the events belong to histories three times as long as the mean. Items are Zipf-like,
    proportional to 1 / (rank + 20), so that the first has half a per cent of the events.
    """
    rng = np.random.default_rng(0)
    normal, sigma = NormalDist(), 1.3
    tail = np.exp([sigma * normal.inv_cdf((u + 0.5) / n_users) for u in range(n_users)])
    length = 20 + (tail / tail.mean() * max(1, mean_events - 20)).astype(np.int64)
    share = 1.0 / (np.arange(n_items) + 20.0)
    share /= share.sum()
    item = rng.choice(n_items, int(length.sum()), p=share).astype(np.int32)
    n = len(item)
    liked = (rng.random(n) < 0.5).astype(np.uint8)
    ptr = np.concatenate([[0], np.cumsum(length)])
    ones = np.ones(n, np.float32)
    sequences = Sequences(np.arange(n_users), ptr, item, liked, ones, np.zeros(n, np.uint8))
    return sequences, (12_500_000 * share).astype(np.int64)


def _block(parameters: Parameters, sequences: Sequences, settings: Settings, count: np.ndarray) -> tuple[float, Move]:
    sampler = make_sampler(count, 0.5)
    work = Workspace(parameters.factors.shape, parameters.n_items)

    def once() -> Move:
        return run_block(parameters, work, sequences, sampler, settings, np.random.default_rng(0))

    move = once()  # compiles
    return _seconds(once), move


def _softmax(k: int, n_items: int, negatives: int, batch: int) -> float:
    """Seconds of one minibatch's loss and gradient without the history."""
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 0.05, (n_items, k)).astype(np.float32)
    query = rng.normal(0, 0.3, (batch, k)).astype(np.float32)
    target, negative = (rng.integers(0, n_items, size).astype(np.int32) for size in (batch, negatives))
    zeros, ones = np.zeros(n_items, np.float32), np.ones(batch, np.float32)
    return _seconds(lambda: softmax_gradient(query, target, negative, factors, zeros, zeros, ones), 20)


def _seconds(action: Callable[[], object], times: int = 1) -> float:
    """Mean seconds of the calling thread's processor time over ``times`` calls; best of nine."""
    best = np.inf
    for _ in range(9):
        begin = time.thread_time()
        for _ in range(times):
            action()
        best = min(best, (time.thread_time() - begin) / times)
    return best


if __name__ == "__main__":
    main()
