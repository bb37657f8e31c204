"""Trains one small machine on a Spark of the given shape, with things going wrong on the way, and prints its sha256.

Run by test_cluster_shapes.py: ``train_shape.py MASTER FOLDER VARIANT...``; every line is ``variant sha256``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession

from fm_spark.config import load_config
from fm_spark.core.gradient import Settings
from fm_spark.training.blocks import PUBLISH, Block, pack_slices
from fm_spark.training.recipes import Recipe
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.trainer import TrainingData, fit

N_ITEMS, N_BLOCKS, N_ROUNDS = 30, 4, 2
RECIPE = Recipe(Settings((0.5, 0.9), 0.1, 0.05, 0.0, 32, 16, 0.3), 0.9, 2)
Watch = Callable[[Iterator[Block]], Iterator[Block]]


def events(spark: SparkSession) -> DataFrame:
    """60 users with 8 to 24 random items each."""
    rng = np.random.default_rng(0)
    rows = [
        (user, position, int(item), float((user + item) % 2 == 0), 1.0, "train")
        for user in range(60)
        for position, item in enumerate(rng.permutation(N_ITEMS)[: rng.integers(8, 25)])
    ]
    names = ["user_id", "position", "item_feature", "label", "weight", "split"]
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string"
    return spark.createDataFrame(pd.DataFrame(rows, columns=names), schema)


def trained(spark: SparkSession, partitions: int, watch: Watch | None = None, after_round: object = None) -> str:
    """The sha256 of the parameters; ``watch`` sees the blocks of every task of a round."""
    slices = pack_slices(events(spark), np.arange(N_ITEMS, dtype=np.int32), N_BLOCKS, N_ROUNDS, partitions, (0.2, 3))
    counts = stage_counts(slices, N_ITEMS).liked
    if watch is not None:
        slices = replace(slices, rdds=[rdd.mapPartitions(watch) for rdd in slices.rdds])
    config = load_config(overrides=["train.k=4"]).train
    data = TrainingData(slices, counts, None, 1.0)
    made = fit(
        spark.sparkContext,
        data,
        config,
        RECIPE,
        PUBLISH,
        epochs=RECIPE.epochs,
        after_round=after_round,  # type: ignore[arg-type]
    )
    slices.unpersist()
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(array).tobytes() for array in made.learnt.arrays().values())
    ).hexdigest()


def failing_once(folder: Path) -> Watch:
    """The first attempt of every task fails after it has handed out its first block."""

    def watch(blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            yield block
            if _attempt() == 0:
                _note(folder, "failed")
                raise RuntimeError("this attempt fails on purpose")

    return watch


def _attempt() -> int:
    context = TaskContext.get()
    return context.attemptNumber() if context else 0


def _note(folder: Path, what: str) -> None:
    (folder / f"{what}-{time.monotonic_ns()}-{os.getpid()}").touch()


def kill_an_executor(folder: Path) -> None:
    """SIGKILL for one of our executors, once."""
    if any(folder.glob("killed-*")):
        return
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            ours = os.getsid(int(process.name)) == os.getsid(0)
        except OSError:  # gone meanwhile
            continue
        if ours and b"org.apache.spark.executor.CoarseGrainedExecutorBackend" in command:
            os.kill(int(process.name), signal.SIGKILL)
            _note(folder, "killed")
            return


def main(master: str, folder: Path, variants: list[str]) -> None:
    """Prints one line a variant."""
    builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    for key, value in {
        "spark.sql.shuffle.partitions": "4",
        "spark.default.parallelism": "2",
        # Spark starts no copy of a task on the host of the first one; with one host the setting alone can be tried
        "spark.speculation": str("speculation" in variants).lower(),
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    }.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    made: dict[str, Callable[[], str]] = {
        "plain": lambda: trained(spark, 2),
        "one": lambda: trained(spark, 1),
        "many": lambda: trained(spark, 32),
        "failing": lambda: trained(spark, 3, failing_once(folder)),
        "speculation": lambda: trained(spark, 4),
        "killed": lambda: trained(spark, 4, after_round=lambda: kill_an_executor(folder)),
    }
    for variant in variants:
        spark.conf.set("spark.sql.adaptive.enabled", str(not variant.endswith("without-aqe")).lower())
        print(variant, made[variant.removesuffix("-without-aqe")](), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
