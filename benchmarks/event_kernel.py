"""Times the kernels of the losses of single events and pairs on one core, in events a second.

    python -m benchmarks.event_kernel [--users 1600] [--k 16]

One block at the shape of MovieLens 25M. ``pass`` is the kernel alone, ``block`` all that a block costs: order, touched
rows, undo, integers of the grid, and the sum in the task. Seconds as in :mod:`benchmarks.kernel`.
"""

from __future__ import annotations

import argparse

from benchmarks.kernel import _seconds, synthetic_block  # first: sets one thread before numpy is loaded

# isort: split
import numpy as np

from fm_spark.core.combine import Accumulator
from fm_spark.core.constant_steps import EventSettings, ItemTable, train_pass
from fm_spark.core.event_strategy import EventLocalSteps
from fm_spark.core.fm_events import Events, Features, Fields, bag_of_items, no_features
from fm_spark.core.fm_parameters import init_fm
from fm_spark.core.fm_rows import FmWorkspace
from fm_spark.core.gradient import make_sampler
from fm_spark.core.pairwise import draw_negatives
from fm_spark.core.pointwise_steps import Steps

N_USERS, N_ITEMS, N_SIDE, GENRES = 162_541, 62_423, 20, 2
STEPS = Steps(*(np.float32(x) for x in (0.01, 0.01, 0.01, 0.0, 0.02, 0.05, 0.05)))


def block_of(n_users: int, bag: bool, side: bool) -> tuple[Fields, Events, ItemTable]:
    """A block of users, with bags of their items and two genres an item where asked for."""
    sequences, count = synthetic_block(n_users, 154, N_ITEMS)
    fields = Fields(N_USERS, N_ITEMS, N_SIDE if side else 0, N_ITEMS if bag else 0)
    rng = np.random.default_rng(0)
    n = len(sequences.item)
    user = rng.permutation(N_USERS)[:n_users]
    events = Events(
        user,
        sequences.ptr,
        np.repeat(user, np.diff(sequences.ptr)).astype(np.int32),
        (sequences.item + fields.item_offset).astype(np.int32),
        rng.integers(0, 2, n).astype(np.float32),
        np.ones(n, np.float32),
        no_features(n),
        bag_of_items(sequences.ptr, sequences.item, fields.bag_offset) if bag else no_features(n_users),
    )
    genre = (rng.random((N_ITEMS, 1)) * N_SIDE + np.arange(GENRES)) % N_SIDE + fields.side_offset
    features = Features(
        np.arange(0, N_ITEMS * GENRES + 1, GENRES), genre.reshape(-1).astype(np.int32),
        np.full(N_ITEMS * GENRES, GENRES**-0.5, np.float32),
    )  # fmt: skip
    side_features = features if side else no_features(N_ITEMS)
    return fields, events, ItemTable(fields.item_offset, side_features, make_sampler(count, 0.5).cumulative)


def measure(loss: str, k: int, n_users: int, bag: bool = False, side: bool = False) -> tuple[float, float]:
    """Events a second: of the pass alone, and of a whole block."""
    fields, events, items = block_of(n_users, bag, side)
    parameters, work = init_fm(fields, k, 0.05, 0.5, 1), FmWorkspace(fields.n_rows)
    settings, strategy = EventSettings(loss, STEPS), EventLocalSteps()
    rng = np.random.default_rng(0)
    negative = np.empty((0, 0), np.int32)
    if loss == "bpr":
        negative = draw_negatives(items.cumulative, (len(events.item), 1), items.offset, rng)
    sums = Accumulator(parameters.factors.shape, len(parameters.linear), strategy.dtype)

    def one_pass() -> None:
        train_pass(parameters, work.stats, events, items, settings, negative, rng)

    def one_block() -> None:
        sums.add(strategy.block(parameters, work, events, items, settings, (0, 0, 0)))

    one_pass()  # compiles
    alone = _seconds(one_pass, 3)
    work.clear()
    one_block()
    return len(events.item) / alone, len(events.item) / _seconds(one_block, 3)


def table(k: int = 16, n_users: int = 1600) -> None:
    """Prints one row for each loss and kind of model."""
    print(f"{'events/s, one core':<44}{'pass':>12}{'block':>12}")
    for loss, bag, side in (
        ("squared", False, False), ("logistic", False, False), ("squared", False, True),
        ("squared", True, False), ("bpr", False, False),
    ):  # fmt: skip
        alone, whole = measure(loss, k, n_users, bag, side)
        name = f"{loss}, k={k}, user+item" + "+bag" * bag + f"+{GENRES} genres" * side
        print(f"{name:<44}{alone:>12,.0f}{whole:>12,.0f}", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1600)
    parser.add_argument("--k", type=int, default=16)
    a = parser.parse_args()
    table(a.k, a.users)


if __name__ == "__main__":
    main()
