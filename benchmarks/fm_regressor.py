"""Spark's own FMRegressor beside fm_spark on the planted ratings: seconds to the same RMSE, on two cores in one run.

    python -m benchmarks.fm_regressor [--scale 1.0] [--iterations 100 200] [--steps 0.03] [--epochs 12]

The data are those of :mod:`benchmarks.planted` (60,000 users x 4,000 items, 1,000,000 ratings, k = 16). FMRegressor
(AdamW, full batches, one-hot vectors in the cache) is fitted with every step size and number of iterations; its time is
that of the one fit with the best RMSE on the held-out ratings. fm_spark trains the rating model with a user and an item
in 32 blocks x 10 rounds, with the settings of ``auto``; its time is from the events to the first round whose parameters
are at least as good: numbering users, packing, counting, rounds. Starting Spark and measuring the RMSE count for none;
both have trained on a hundredth of the data before, so that neither pays for a cold JVM compiler or a new Python
worker.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from pyspark.ml.feature import OneHotEncoder, VectorAssembler
from pyspark.ml.regression import FMRegressor
from pyspark.sql import DataFrame, SparkSession

from benchmarks.planted import K, Planted, planted, rmse
from fm_spark.config import load_config
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.training.blocks import PUBLISH, STAGES, pack_slices
from fm_spark.training.event_data import event_data, find_users
from fm_spark.training.event_learner import EventLearner
from fm_spark.training.recipes import event_candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.rounds import RoundKey, run_round

BLOCKS, ROUNDS = 32, 10


def ratings(spark: SparkSession, data: Planted, folder: str) -> DataFrame:
    """The training ratings as an events table, from a Parquet file."""
    train = data.train
    length = np.diff(train.ptr)
    rows = pd.DataFrame({
        "user_id": np.repeat(np.arange(train.n_users), length),
        "position": (np.arange(len(train.item)) - np.repeat(train.ptr[:-1], length)).astype(np.int32),
        "item_feature": (train.item - data.fields.item_offset).astype(np.int32),
        "label": 1.0, "value": train.label.astype(np.float64), "weight": 1.0, "split": "train",
    })  # fmt: skip
    rows.to_parquet(f"{folder}/ratings.parquet", index=False)
    return spark.read.parquet(f"{folder}/ratings.parquet")


def regressor_fits(
    events: DataFrame, data: Planted, steps: list[float], iterations: list[int]
) -> Iterator[tuple[float, int, float, float]]:
    """Step size, iterations, RMSE and seconds of each fit."""
    sizes = {"user_id": data.fields.n_users, "item_feature": data.fields.n_items}
    # the encoder learns the number of categories from its data: a row with the greatest of each
    names = list(sizes)
    last = events.sparkSession.createDataFrame([tuple(size - 1 for size in sizes.values())], names)
    encoder = OneHotEncoder(inputCols=names, outputCols=["u", "i"], dropLast=False).fit(last)
    vectors = VectorAssembler(inputCols=["u", "i"], outputCol="features").transform(encoder.transform(events))
    cached = vectors.selectExpr("features", "value as label").repartition(2).cache()
    cached.count()
    for step in steps:
        for most in iterations:
            begin = time.perf_counter()
            fitted = FMRegressor(factorSize=K, maxIter=most, stepSize=step, seed=1).fit(cached)
            seconds = time.perf_counter() - begin
            linear = np.append(fitted.linear.toArray(), fitted.intercept)
            yield step, most, rmse(data, FmParameters(fitted.factors.toArray(), linear)), seconds
    cached.unpersist()


def our_rounds(events: DataFrame, data: Planted, epochs: int) -> Iterator[tuple[int, float, float]]:
    """Rounds so far, RMSE after them, and seconds."""
    begin = time.perf_counter()
    sc = events.sparkSession.sparkContext
    names = ["train.loss=squared", f"train.k={K}", "train.bag=false", "train.genres=false"]
    config = load_config(overrides=names).train
    users, places = find_users(events), np.arange(data.fields.n_items, dtype=np.int32)
    slices = pack_slices(events, places, BLOCKS, ROUNDS, 2, (0.2, 5), values=True, users=users.ids)
    seen = np.bincount(data.train.item - data.fields.item_offset, minlength=data.fields.n_items)
    known = event_data(config, slices, users, None, dict.fromkeys(STAGES, seen))
    n = len(data.train.item)
    recipe = event_candidates(config, DataSize(len(users.ids), n, n, data.fields.n_items))[0]
    learner = EventLearner(config, recipe.settings, PUBLISH, known, seen)
    learnt = learner.start()
    seconds = time.perf_counter() - begin
    for epoch in range(epochs):
        for r, blocks in enumerate(slices.rdds):
            begin = time.perf_counter()
            run_round(sc, blocks, learner, learnt, recipe.at_epoch(epoch), RoundKey(1, epoch, r, BLOCKS))
            seconds += time.perf_counter() - begin
            yield epoch * ROUNDS + r + 1, rmse(data, _by_id(learnt.parameters, users.ids, data)), seconds
    slices.unpersist()


def _by_id(parameters: FmParameters, ids: np.ndarray, data: Planted) -> FmParameters:
    """The parameters with a row for every user of the planted set, those without a rating too."""
    n = len(ids)
    factors = np.zeros((data.fields.n_rows, K), np.float32)
    linear = np.zeros(data.fields.n_rows + 1, np.float32)
    factors[ids], factors[data.fields.n_users :] = parameters.factors[:n], parameters.factors[n:]
    linear[ids], linear[data.fields.n_users :] = parameters.linear[:n], parameters.linear[n:]
    return FmParameters(factors, linear)


def warm_up(spark: SparkSession, folder: str) -> None:
    """Lets both train on few data."""
    data = planted(600, 400, 10_000)
    events = ratings(spark, data, folder)
    for _ in regressor_fits(events, data, [0.03], [5]):
        pass
    for _ in our_rounds(events, data, 1):
        pass


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of users, items and ratings")
    parser.add_argument("--iterations", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--steps", type=float, nargs="+", default=[0.03])
    parser.add_argument("--epochs", type=int, default=12)
    a = parser.parse_args()
    data = planted(*(int(a.scale * n) for n in (60_000, 4_000, 1_000_000)))
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(local_submit_args("local[2]", [], {"spark.driver.memory": "4g"}))
    spark = open_session("benchmark FMRegressor", load_config())
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as folder:
        warm_up(spark, small)
        _compare(ratings(spark, data, folder), data, a)
    spark.stop()


def _compare(events: DataFrame, data: Planted, a: argparse.Namespace) -> None:
    print(f"{events.count():,} training ratings; RMSE of the planted machine itself {data.floor:.4f}")
    print(f"\n{'FMRegressor':<34}{'RMSE':>8}{'seconds':>10}")
    fits = []
    for step, most, error, seconds in regressor_fits(events, data, a.steps, a.iterations):
        fits.append((error, seconds))
        print(f"{f'step size {step:g}, {most} iterations':<34}{error:>8.4f}{seconds:>10.1f}", flush=True)
    best, theirs = min(fits)
    print(f"\n{'fm_spark':<34}{'RMSE':>8}{'seconds':>10}")
    ours = None
    for rounds, error, seconds in our_rounds(events, data, a.epochs):
        reached = ours is None and error <= best
        if rounds == 1 or reached or rounds % (3 * ROUNDS) == 0:
            print(f"{f'{rounds} rounds':<34}{error:>8.4f}{seconds:>10.1f}", flush=True)
        ours = seconds if reached else ours
    if ours is None:
        print("\nfm_spark did not reach the RMSE of FMRegressor")
    else:
        times = f"FMRegressor {theirs:.1f} s, fm_spark {ours:.1f} s"
        print(f"\nto RMSE {best:.4f}: {times}, {theirs / ours:.0f} times shorter")


if __name__ == "__main__":
    main()
