"""Ranking quality by number of blocks and combine rule, on the bundled ratings, without Spark.

    python -m benchmarks.combine_rules [--seeds 5] [--epochs 20]

Split user_time: NDCG@10 on each user's last fifth of liked events, with the settings that `auto` gives small data; mean
over seeds. As in training, rounds share the blocks where each would have few users (docs/configuration.md), and the
number of epochs (at most ``--epochs``) is the best one on the validation part, the last fifth of what is known. One
block is sequential SGD. "sum" and "average" add up or average what the blocks learnt; "adaptive" is the adaptive sum
with the trust region, which training uses. Less than 98 % of the one-block figure is marked with "<".
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd

from fm_spark.config import load_config
from fm_spark.core.combine import MOVE_GRID, STATE_GRID, MoveSum, RowSum, adaptive_sum, merge
from fm_spark.core.gradient import Settings, Workspace, make_sampler
from fm_spark.core.item_scores import prepare_items, user_items
from fm_spark.core.machine import Machine
from fm_spark.core.metrics import rank_metrics
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.plan import Part
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import TEST, TRAIN, Sequences, hold_out, select, take_users
from fm_spark.core.strategy import LocalSteps
from fm_spark.training.resolve import DataSize, shares_users

CONFIG = load_config().train
SETTINGS = Settings((0.8, 0.98), 0.1, 0.2, 0.0, 256, 512, 0.3)
RATE_DECAY, K = 0.85, 64
GRID = [(1, 1, "sequential"), (8, 10, "adaptive"), (8, 25, "adaptive"), (32, 10, "adaptive"), (32, 25, "adaptive")]
GRID += [(8, 10, "sum"), (8, 10, "average")]


class Data(NamedTuple):
    """Training part, the held-out part and the number of items."""

    known: Sequences
    held: Sequences
    n_items: int


def bundled() -> Data:
    """The bundled ratings, in the order of each user's history."""
    folder = Path(__file__).resolve().parents[1] / "data" / "ml-latest-small"
    ids = np.sort(pd.read_csv(folder / "movies.csv")["movieId"].to_numpy())
    rows = pd.read_csv(folder / "ratings.csv").sort_values(["userId", "timestamp", "movieId"], kind="stable")
    user = rows["userId"].to_numpy()
    ptr = np.append(np.flatnonzero(np.diff(user, prepend=-1)), len(user)).astype(np.int64)
    item = np.searchsorted(ids, rows["movieId"].to_numpy()).astype(np.int32)
    liked = (rows["rating"].to_numpy() >= 4).astype(np.uint8)
    whole = Sequences(user[ptr[:-1]], ptr, item, liked, np.ones(len(item), np.float32), np.zeros(len(item), np.uint8))
    part = hold_out(whole, 0.2, 5)
    return Data(select(whole, part == TRAIN), select(whole, part == TEST), len(ids))


def plain(parameters: Parameters, total: MoveSum, average: bool) -> None:
    """The plain sum or average of the blocks' moves; the AdaGrad states add up."""

    def apply(part: RowSum, values: np.ndarray, state: np.ndarray) -> None:
        share = 1.0 / part.blocks if average else np.ones(len(part.rows))
        values[part.rows] += (part.move * (share / MOVE_GRID)[:, None]).astype(np.float32)
        state[part.rows] += part.state / STATE_GRID

    apply(total.factors, parameters.factors, parameters.factors_state)
    apply(total.bias, parameters.bias.reshape(-1, 1), parameters.bias_state)


def ndcg(parameters: Parameters, data: Data) -> float:
    """NDCG@10 on the held-out part."""
    history = parameters.history(len(SETTINGS.decays))
    machine = Machine(np.array(SETTINGS.decays), history, parameters.item_factors, parameters.bias)
    items = prepare_items(machine.item_factors, machine.item_bias)
    seen, truth = user_items(data.known.ptr, data.known.item), user_items(data.held.ptr, data.held.item)
    return rank_metrics(items, user_queries(data.known, machine), seen, truth).means()["ndcg_at_10"]


def train(data: Data, n_blocks: int, rounds: int, rule: str, seed: int, epochs: int) -> Iterator[float]:
    """Trains one machine; yields its NDCG@10 after each epoch, and ends early when it diverges."""
    count = np.bincount(data.known.item[data.known.liked > 0], minlength=data.n_items)
    parameters = init_parameters(len(SETTINGS.decays), count, K, 0.05, seed)
    sampler, work = make_sampler(count, 0.5), Workspace(parameters.factors.shape, data.n_items)
    strategy = LocalSteps(0.5)
    size = DataSize(data.known.n_users, len(data.known.item), int(count.sum()), int(np.count_nonzero(count)))
    slices, parts = (1, rounds) if shares_users(CONFIG, size, n_blocks, rounds) else (rounds, 1)
    place = np.random.default_rng(seed).integers(0, n_blocks * slices, data.known.n_users)
    blocks = [take_users(data.known, np.flatnonzero(place == p)) for p in range(n_blocks * slices)]
    for epoch in range(epochs):
        settings = SETTINGS._replace(learning_rate=SETTINGS.learning_rate * RATE_DECAY**epoch)
        for r in range(rounds):
            total: MoveSum | None = None
            of_round = settings._replace(part=Part(r // slices, parts, seed << 32 | epoch))
            for b in range(n_blocks):
                key = (seed, epoch, r * n_blocks + b)
                block = blocks[r % slices * n_blocks + b]
                try:
                    learnt = strategy.block(parameters, work, block, sampler, of_round, key)
                except FloatingPointError:
                    return
                total = merge(total, learnt)
            assert total is not None
            if rule in ("sum", "average"):
                plain(parameters, total, rule == "average")
            else:
                adaptive_sum(parameters, total, n_blocks, 0.5)
        yield ndcg(parameters, data) if np.isfinite(parameters.factors).all() else float("nan")


def run(data: Data, n_blocks: int, rounds: int, rule: str, seed: int, most: int) -> tuple[float, int]:
    """NDCG@10 of one machine on the held-out part, and the epochs that validation chose; NaN when it diverges."""
    part = hold_out(data.known, 0.2, 5)
    validation = Data(select(data.known, part == TRAIN), select(data.known, part == TEST), data.n_items)
    by_epoch = list(train(validation, n_blocks, rounds, rule, seed, most))
    if not by_epoch or np.isnan(by_epoch).all():
        return float("nan"), 0
    epochs = int(np.nanargmax(by_epoch)) + 1
    made = list(train(data, n_blocks, rounds, rule, seed, epochs))
    return (made[-1] if len(made) == epochs else float("nan")), epochs


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    a = parser.parse_args()
    data = bundled()
    print(f"NDCG@10 on the bundled ratings, at most {a.epochs} epochs, mean of {a.seeds} seeds (standard error)")
    print(f"{'blocks x rounds':<17}{'rule':<12}{'NDCG@10':>18}{'of one block':>14}{'epochs':>8}{'s a run':>9}")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        _rows(pool, data, a.seeds, a.epochs)


def _rows(pool: ProcessPoolExecutor, data: Data, n_seeds: int, most: int) -> None:
    first = 0.0
    for n_blocks, rounds, rule in GRID:
        begin = time.perf_counter()
        one = partial(run, data, n_blocks, rounds, rule, most=most)
        found = list(pool.map(one, range(1, n_seeds + 1)))
        values, epochs = np.array([value for value, _ in found]), np.mean([chosen for _, chosen in found])
        seconds = (time.perf_counter() - begin) / n_seeds
        mean, error = values.mean(), values.std(ddof=1) / np.sqrt(n_seeds) if n_seeds > 1 else 0.0
        first = first or mean
        mark = "" if mean >= 0.98 * first else " <"
        row = f"{f'{n_blocks} x {rounds}':<17}{rule:<12}{mean:>10.4f} ({error:.4f}){mean / first:>13.1%}"
        print(f"{row}{epochs:>8.1f}{seconds:>9.1f}{mark}", flush=True)


if __name__ == "__main__":
    main()
