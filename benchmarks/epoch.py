"""Times rounds of training on Spark at the shape of MovieLens 25M, on synthetic histories.

    python -m benchmarks.epoch [--loss softmax] [--users 162541] [--items 62423] [--events 25000095] [--k 0]
                               [--negatives 256] [--measure 5] [--rounds 0] [--blocks 0]

Histories are drawn where they are used: at least 20 events a user with a long tail, items Zipf-like, half of the
events liked; every user has favourite kinds of items, so there is a taste to learn. ``softmax`` learns from three bags
(k = 64), ``squared`` from user and item (k = 16). ``--measure`` rounds are run (the first compiles and is left out);
the table has seconds by part of a round and what an epoch takes at that rate, beside what the planner predicts. The
loss of ``softmax`` has to fall from the first round on.
"""

from __future__ import annotations

import argparse
import os
import resource
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pyspark import RDD, SparkContext, StorageLevel

from fm_spark.config import Config, load_config
from fm_spark.config_sections import TrainConfig
from fm_spark.core.fm_events import Fields
from fm_spark.core.gradient import Settings
from fm_spark.core.planner import MIB, Plan
from fm_spark.core.sequences import Sequences
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.training.blocks import PUBLISH, Block
from fm_spark.training.event_data import EventData, Totals, Users
from fm_spark.training.event_learner import EventLearner
from fm_spark.training.learner import Learner
from fm_spark.training.planning import Cluster, Counts, plan_training
from fm_spark.training.ranker import RankerLearner
from fm_spark.training.recipes import AnySettings, event_candidates
from fm_spark.training.resolve import DataSize, block_count, round_count
from fm_spark.training.rounds import RoundKey, RoundRecord, run_round


@dataclass(frozen=True)
class Shape:
    """How large the synthetic log is."""

    users: int
    items: int
    events: int
    KINDS: ClassVar[int] = 20
    """Item i is of the kind i % KINDS; a user has two favourite kinds."""

    def popularity(self) -> np.ndarray:
        """Probability of each item, Zipf-like: proportional to 1 / (rank + 20)."""
        weight = 1.0 / (np.arange(self.items) + 20.0)
        return weight / weight.sum()


def synthetic_block(shape: Shape, slice_: int, number: int, n_users: int, first_row: int) -> Block:
    """One block of users with log-normal history lengths of at least 20 and mean events / users.

    Items of a favourite kind are rated higher, and liked more often.
    """
    rng = np.random.Generator(np.random.Philox(key=[slice_, number]))
    mean = shape.events / shape.users - 20
    sigma = 1.3
    length = 20 + np.exp(rng.normal(np.log(max(mean, 1.0)) - sigma**2 / 2, sigma, n_users)).astype(np.int64)
    length = np.minimum(length, shape.items)
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    n = int(ptr[-1])
    favourite = np.repeat(rng.integers(0, Shape.KINDS, (n_users, 2)), length, axis=0)
    taste = rng.random(n) < 0.7
    kind = np.where(taste, favourite[np.arange(n), rng.integers(0, 2, n)], rng.integers(0, Shape.KINDS, n))
    place = np.searchsorted(np.cumsum(shape.popularity()), rng.random(n)) // Shape.KINDS
    item = (place * Shape.KINDS + kind).clip(max=shape.items - 1).astype(np.int32)
    liked = (rng.random(n) < np.where(taste, 0.6, 0.27)).astype(np.uint8)
    value = np.clip(np.where(taste, 3.8, 3.2) + rng.normal(0, 0.9, n), 0.5, 5.0).astype(np.float32)
    user = rng.integers(0, 2**62, n_users)
    empty = np.zeros(n, np.uint8)
    sequences = Sequences(user, ptr, item, liked, np.ones(n, np.float32), empty, value)
    return Block(slice_, number, sequences, empty, np.arange(first_row, first_row + n_users, dtype=np.int32))


def slices(sc: SparkContext, shape: Shape, measure: int, rounds: int, blocks: int) -> list[RDD[Block]]:
    """The first slices of an epoch, persisted."""
    users = max(1, shape.users // (rounds * blocks))
    made = []
    for r in range(measure):
        numbers = sc.parallelize(range(blocks), sc.defaultParallelism)
        rdd = numbers.map(lambda b, r=r: synthetic_block(shape, r, b, users, (r * blocks + b) * users))
        rdd.persist(StorageLevel.MEMORY_AND_DISK)
        rdd.count()
        made.append(rdd)
    return made


def learner_of(a: argparse.Namespace, config: TrainConfig, shape: Shape) -> tuple[Learner, AnySettings]:
    """The machine of ``--loss`` with the settings that ``auto`` gives data of this size."""
    count = (shape.popularity() * shape.events / 2).astype(np.int64)
    if a.loss == "softmax":
        settings = Settings((0.3, 0.8, 0.98), 0.1, 0.05, 0.0, 1024, a.negatives, 0.7)
        return RankerLearner(config, settings.decays, PUBLISH, count), settings
    once = np.ones(shape.users, np.int64)
    users = Users(np.arange(shape.users), once, once)
    totals = Totals(shape.events, round(3.5 * shape.events), shape.events // 2, 0.5, 5.0)
    data = EventData(Fields(shape.users, shape.items), None, users, {PUBLISH: 2 * count + 1}, {PUBLISH: totals})
    recipe = event_candidates(config, DataSize(shape.users, shape.events, shape.events // 2, shape.items))[0]
    return EventLearner(config, recipe.settings, PUBLISH, data, count), recipe.settings


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=("softmax", "squared"), default="softmax")
    defaults = {"users": 162_541, "items": 62_423, "events": 25_000_095, "k": 0, "negatives": 256}
    for name, value in {**defaults, "measure": 5, "rounds": 0, "blocks": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    k = a.k or (64 if a.loss == "softmax" else 16)
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(local_submit_args("local[2]", [], {"spark.driver.memory": "4g"}))
    spark = open_session("benchmark epoch", load_config())
    plain = ["train.bag=false", "train.genres=false"] if a.loss == "squared" else []
    config = load_config(overrides=[f"train.loss={a.loss}", f"train.k={k}", *plain])
    shape = Shape(a.users, a.items, a.events)
    size = DataSize(a.users, a.events, a.events // 2, a.items)
    blocks = a.blocks or block_count(config.train, size)
    rounds = a.rounds or round_count(config.train, size, blocks)
    learner, settings = learner_of(a, config.train, shape)
    learnt = learner.start()
    what = f"S = {a.negatives}, three bags" if a.loss == "softmax" else "user and item"
    print(f"{a.loss}: {a.users:,} users, {a.items:,} items, {a.events:,} events; k = {k}, {what}")
    size_mb = learner.shared(learnt)[1] / 1e6
    print(f"{blocks} blocks x {rounds} rounds an epoch, {size_mb:.0f} MB of parameters", flush=True)
    records: list[RoundRecord] = []
    for r, rdd in enumerate(slices(spark.sparkContext, shape, min(a.measure, rounds), rounds, blocks)):
        key = RoundKey(1, 0, r, blocks)
        records.append(run_round(spark.sparkContext, rdd, learner, learnt, settings, key))
        print(f"round {r + 1}: loss {records[-1].loss:.4f}, {records[-1].events:,} events", flush=True)
    _table(records[1:] or records, rounds, planned(config, size, shape), worker_peak(spark.sparkContext))
    spark.stop()


def planned(config: Config, size: DataSize, shape: Shape) -> Plan:
    """What the planner predicts for this shape on two cores."""
    counts = Counts(size, size.events, size.positives, shape.popularity() * size.events, 0, 0, "the shape")
    return plan_training(config, counts, Cluster(1, 2, 2))


def _table(records: list[RoundRecord], rounds: int, made: Plan, worker: float) -> None:
    expected = made.seconds
    parts = {
        "broadcast": ([r.seconds_broadcast for r in records], expected.broadcast),
        "blocks, each core": ([r.seconds_compute / 2 for r in records], expected.compute),
        "transport": ([r.seconds_aggregate - r.seconds_compute / 2 for r in records], expected.aggregate),
        "step": ([r.seconds_step for r in records], expected.step),
    }
    whole = sum(float(np.median(values)) for values, _ in parts.values())
    print(f"\n{'part':<20}{'s a round':>10}{'s an epoch':>12}{'predicted':>11}")
    for name, (values, seconds) in parts.items():
        print(f"{name:<20}{np.median(values):>10.3f}{np.median(values) * rounds:>12.1f}{seconds:>11.1f}")
    print(f"{'whole':<20}{whole:>10.3f}{whole * rounds:>12.1f}{expected.epoch:>11.1f}")
    sent, back = (np.median([getattr(r, name) for r in records]) for name in ("bytes_broadcast", "bytes_aggregated"))
    t = made.transport
    print(f"\n{sent / 1e6:.0f} MB broadcast (predicted {t.broadcast / 1e6:.0f}), ", end="")
    print(f"{back / 1e6:.0f} MB aggregated a round (predicted {t.aggregated / 1e6:.0f})")
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory: driver (Python) {driver:,.0f} MiB (predicted {made.memory.driver_python / MIB:,.0f})", end="")
    print(f", a Python worker {worker:,.0f} MiB (predicted {made.memory.worker / MIB:,.0f})")


def worker_peak(sc: SparkContext) -> float:
    """MiB that the largest Python worker has held."""
    sizes = sc.parallelize(range(8), 4).mapPartitions(lambda _: [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])
    return max(sizes.collect()) / 1024


if __name__ == "__main__":
    main()
