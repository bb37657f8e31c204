"""Compiles the numba kernels once, so that the first run does not wait for it; the code is cached on disk."""

from __future__ import annotations

import os

from fm_spark.submit import session_environment

# the same cache folder as the jobs; numba reads it when it is imported
os.environ.update(session_environment(os.environ))

import numpy as np

from fm_spark.core.combine import Accumulator
from fm_spark.core.gradient import Settings, Workspace, make_sampler
from fm_spark.core.machine import Machine
from fm_spark.core.metrics import rank_metrics
from fm_spark.core.parameters import init_parameters
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import Sequences
from fm_spark.core.strategy import LocalSteps
from fm_spark.core.topk import prepare_items, top_n, user_items


def main() -> None:
    """Runs a round, a ranking and its metrics on a handful of random events."""
    rng = np.random.default_rng(0)
    users, n_items, k, decays = 4, 60, 4, (0.5,)
    item = np.concatenate([rng.permutation(n_items)[:10] for _ in range(users)]).astype(np.int32)
    ptr = np.arange(users + 1, dtype=np.int64) * 10
    liked, part = (np.arange(len(item)) % 2).astype(np.uint8), np.zeros(len(item), np.uint8)
    block = Sequences(np.arange(users), ptr, item, liked, np.ones(len(item), np.float32), part)
    count = np.bincount(item, minlength=n_items)
    parameters = init_parameters(1, count, k, 0.1, 1)
    work, total = Workspace((3 * n_items, k), n_items), Accumulator((3 * n_items, k), n_items)
    settings = Settings(decays, 0.1, 0.1, 0.0, 8, 8, 0.3)
    total.add(LocalSteps(0.5).block(parameters, work, block, make_sampler(count, 0.5), settings, (1, 0, 0)))
    history = parameters.factors[:-n_items].reshape(1, 2, n_items, k)
    machine = Machine(np.array(decays), history, parameters.item_factors, parameters.bias)
    items, seen = prepare_items(machine.item_factors, machine.item_bias), user_items(ptr, item)
    queries = user_queries(block, machine)
    top_n(items, queries, 10, seen)
    rank_metrics(items, queries, seen, user_items(ptr, (item + 1) % n_items))


if __name__ == "__main__":
    main()
