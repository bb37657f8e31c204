"""Rating prediction on a planted set: validation RMSE by number of blocks and combine rule, without Spark.

    python -m benchmarks.planted [--scale 1.0] [--epochs 12]

60,000 users x 4,000 items, 1,000,000 ratings with power-law counts, made by a machine with k = 16 and noise 0.76. Every
row trains for the same epochs with the same rates. One block is sequential SGD; "rule" weighs the blocks by the
curvature they saw, "sum" and "average" add up or average the parameters of the blocks.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from fm_spark.core.combine import Accumulator
from fm_spark.core.constant_steps import EventSettings, ItemTable, run_events
from fm_spark.core.event_strategy import EventLocalSteps
from fm_spark.core.fm_events import Events, Fields, no_features, take_users
from fm_spark.core.fm_parameters import FmParameters, init_fm
from fm_spark.core.fm_rows import FmWorkspace
from fm_spark.core.pointwise import predict
from fm_spark.core.pointwise_steps import Steps

NOISE, K = 0.76, 16
RATE, RATE_DECAY, L2 = 0.02, 0.9, 0.03


class Planted(NamedTuple):
    """Ratings that a known machine made.

    Attributes:
        train, held: nine tenths and one tenth of the ratings.
        fields: users and items.
        items: the items without static features.
        floor: RMSE of the machine itself on ``held``.
    """

    train: Events
    held: Events
    fields: Fields
    items: ItemTable
    floor: float


def planted(
    n_users: int = 60_000, n_items: int = 4_000, n_ratings: int = 1_000_000, k: int = K, noise: float = NOISE,
    seed: int = 0,
) -> Planted:  # fmt: skip
    """Draws distinct (user, item) pairs with power-law counts and rates them by a machine of k factors.

    Standard deviations: 0.3 for both biases and for <p_u, q_i>, ``noise`` for the rest.
    """
    rng = np.random.default_rng(seed)
    pairs = _pairs(rng, n_users, n_items, n_ratings)
    user, item = pairs // n_items, pairs % n_items
    bias_u, bias_i = rng.normal(0, 0.3, n_users), rng.normal(0, 0.3, n_items)
    spread = (0.3**2 / k) ** 0.25
    p, q = rng.normal(0, spread, (n_users, k)), rng.normal(0, spread, (n_items, k))
    mean = 3.5 + bias_u[user] + bias_i[item] + np.einsum("nk,nk->n", p[user], q[item])
    rating = mean + rng.normal(0, noise, n_ratings)
    held = rng.random(n_ratings) < 0.1
    floor = float(np.sqrt(np.mean(np.square(rating - mean)[held])))
    fields = Fields(n_users, n_items)
    parts = [as_events(fields, user[at], item[at], rating[at]) for at in (~held, held)]
    return Planted(parts[0], parts[1], fields, ItemTable(n_users, no_features(n_items), np.empty(0)), floor)


def _pairs(rng: np.random.Generator, n_users: int, n_items: int, n: int) -> np.ndarray:
    """n distinct pairs, ascending user * n_items + item."""
    user_share = rng.pareto(1.2, n_users) + 0.3
    item_share = np.arange(1, n_items + 1) ** -0.8
    user_share, item_share = user_share / user_share.sum(), item_share / item_share.sum()
    pairs = np.empty(0, np.int64)
    while len(pairs) < n:
        user, item = rng.choice(n_users, n, p=user_share), rng.choice(n_items, n, p=item_share)
        pairs = np.union1d(pairs, user * n_items + item)
    return np.sort(rng.choice(pairs, n, replace=False))


def as_events(fields: Fields, user: np.ndarray, item: np.ndarray, rating: np.ndarray) -> Events:
    """Events of all users (ascending ``user``), of weight one, with a user and an item feature."""
    n = len(user)
    return Events(
        np.arange(fields.n_users),
        np.searchsorted(user, np.arange(fields.n_users + 1)).astype(np.int64),
        user.astype(np.int32),
        (item + fields.item_offset).astype(np.int32),
        rating.astype(np.float32),
        np.ones(n, np.float32),
        no_features(n),
        no_features(fields.n_users),
    )


def rmse(data: Planted, parameters: FmParameters) -> float:
    """Root mean squared error on the held-out ratings."""
    out = np.empty(len(data.held.item), np.float32)
    predict(parameters, data.held, data.items.side, data.items.offset, out)
    return float(np.sqrt(np.mean(np.square(out - data.held.label))))


def cut(data: Planted, blocks: int, rounds: int) -> list[list[Events]]:
    """Users dealt to rounds and blocks at random: [rounds][blocks]."""
    rng = np.random.default_rng(7)
    cell = rng.integers(0, blocks * rounds, data.train.n_users)
    parts = [take_users(data.train, np.flatnonzero(cell == c)) for c in range(blocks * rounds)]
    return [parts[r * blocks : (r + 1) * blocks] for r in range(rounds)]


def settings_of(epoch: int, rate: float = RATE, l2: float = L2) -> EventSettings:
    """Rates of an epoch."""
    rate *= RATE_DECAY**epoch
    values = (rate, rate, rate, 0.0, l2, l2, l2)
    return EventSettings("squared", Steps(*(np.float32(value) for value in values)))


def fit(data: Planted, blocks: int, rounds: int, rule: str, epochs: int) -> FmParameters:
    """Trains in rounds; ``rule`` is "rule", "sum" or "average"."""
    parameters = init_fm(data.fields, K, 0.05, float(data.train.label.mean()), 1)
    work = FmWorkspace(data.fields.n_rows)
    slices = cut(data, blocks, rounds)
    combine = _by_rule if rule == "rule" else _by_adding
    for epoch in range(epochs):
        for r, parts in enumerate(slices):
            weight = 1.0 / blocks if rule == "average" else 1.0
            combine(data, parameters, work, parts, settings_of(epoch), (0, epoch, r * blocks), weight)
    return parameters


def _by_rule(data, parameters, work, parts, settings, key, weight) -> None:  # type: ignore[no-untyped-def]
    strategy = EventLocalSteps()
    total = Accumulator(parameters.factors.shape, len(parameters.linear), strategy.dtype)
    for number, events in enumerate(parts):
        total.add(strategy.block(parameters, work, events, data.items, settings, (*key[:2], key[2] + number)))
    strategy.apply(parameters, None, total.take(), settings)


@np.errstate(all="ignore")
def _by_adding(data, parameters, work, parts, settings, key, weight) -> None:  # type: ignore[no-untyped-def]
    factors, linear = np.zeros(parameters.factors.shape), np.zeros(parameters.linear.shape)
    for number, events in enumerate(parts):
        rng = np.random.Generator(np.random.Philox(key=[key[0], (key[1] << 32) | (key[2] + number)]))
        move = run_events(parameters, work, events, data.items, settings, rng)
        factors[move.rows] += weight * move.moved.factors
        linear[np.append(move.rows, -1)] += weight * move.moved.linear
    parameters.factors[:] += factors
    parameters.linear[:] += linear


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of users, items and ratings")
    parser.add_argument("--epochs", type=int, default=12)
    a = parser.parse_args()
    data = planted(*(int(a.scale * n) for n in (60_000, 4_000, 1_000_000)))
    print(f"{len(data.train.item):,} training ratings, {a.epochs} epochs; the planted machine itself: {data.floor:.4f}")
    print(f"{'blocks':>6} {'rounds':>6} {'combine':<10} {'RMSE':>8} {'- sequential':>13} {'seconds':>8}")
    first = None
    for blocks, rounds, rule in (
        (1, 1, "rule"), (32, 10, "rule"), (128, 10, "rule"),
        (32, 10, "sum"), (32, 10, "average"), (128, 10, "sum"), (128, 10, "average"),
    ):  # fmt: skip
        begin = time.perf_counter()
        error = rmse(data, fit(data, blocks, rounds, rule, a.epochs))
        first = error if first is None else first
        seconds = time.perf_counter() - begin
        print(f"{blocks:>6} {rounds:>6} {rule:<10} {error:>8.4f} {error - first:>+13.4f} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
