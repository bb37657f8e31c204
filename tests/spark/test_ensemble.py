"""Ensembles on Spark: the same bits for any partitioning, members with the bits of their seeds, resuming, serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from event_inputs import csv_folder
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from test_event_losses import N_ITEMS, in_spark, pack, rows, sha

from fm_spark.config import Config, load_config
from fm_spark.core.gradient import Settings
from fm_spark.tables.contracts import FM_MODEL, FM_PARAMETERS, TOP_N
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import PUBLISH, VALIDATION, pack_slices
from fm_spark.training.checkpoints import Checkpoints, fingerprint
from fm_spark.training.ensemble import EnsembleLearnt, one_machine, restore_ensemble
from fm_spark.training.event_learner import restore_events
from fm_spark.training.fits import FitPlan, Fits
from fm_spark.training.ranker import restore_ranker
from fm_spark.training.recipes import Recipe, event_candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.trainer import FitState, TrainingData, fit
from jobs import evaluate, events, recommend, train

SMALL = ["train.k=3", "train.epochs=2", "train.average_from=1", "train.ensemble=2"]
RECIPE = Recipe(Settings((0.5, 0.9), 0.1, 0.05, 0.0, 32, 16, 0.3), 0.9, 2)


def ranking_data(spark: SparkSession, partitions: int) -> TrainingData:
    log = in_spark(spark, rows()).repartition(partitions)
    slices = pack_slices(log, np.arange(N_ITEMS, dtype=np.int32), 3, 2, partitions, (0.2, 3))
    return TrainingData(slices, stage_counts(slices, N_ITEMS).liked, None, 1.0)


@pytest.mark.parametrize("local_steps", ["on", "off"])
def test_same_bits_for_any_partitioning_and_members_of_their_seeds(spark: SparkSession, local_steps: str) -> None:
    overrides = ["train.k=3", f"train.local_steps={local_steps}"]
    together = load_config(overrides=[*overrides, "train.ensemble=2"]).train
    found, sc = {}, spark.sparkContext
    for partitions in (1, 7):
        data = ranking_data(spark, partitions)
        found[partitions] = fit(sc, data, together, RECIPE, PUBLISH, epochs=2)
        if partitions == 7:
            seeds = [load_config(overrides=[*overrides, f"train.seed={seed}"]).train for seed in (1, 2)]
            alone = [fit(sc, data, config, RECIPE, PUBLISH, epochs=2) for config in seeds]
        data.slices.unpersist()
    assert sha(found[1]) == sha(found[7])
    wanted = one_machine([one.learnt for one in alone]).arrays()
    assert wanted["factors"].shape[1] == 6
    assert all(np.array_equal(wanted[name], found[7].learnt.arrays()[name]) for name in ("factors", "bias"))
    # an event counts once, whatever the number of members
    events_of = [[row.record.events for row in made.history] for made in (found[7], alone[0])]
    assert events_of[0] == events_of[1]


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_a_killed_ensemble_is_resumed_to_the_same_bits(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    own = SMALL if loss == "squared" else [word for word in SMALL if "average" not in word]
    config = load_config(overrides=[*own, f"train.loss={loss}"])
    data = pack(in_spark(spark, rows()), config, 2, rounds=2) if loss == "squared" else ranking_data(spark, 2)
    store = TableStore(spark, str(tmp_path))
    recipe = event_candidates(config.train, DataSize(1, 1, 1, 1))[0] if loss == "squared" else RECIPE
    plan = FitPlan(VALIDATION, 0, recipe, 2)
    restore = restore_events if loss == "squared" else partial(restore_ranker, x=None)

    def fits() -> Fits:
        own = fingerprint("cut", config, "1", "2", {})
        checkpoints = Checkpoints(store, "cut", own, (1, 0.0), partial(restore_ensemble, restore=restore))
        return Fits(spark.sparkContext, data, config.train, checkpoints)

    whole = fit(spark.sparkContext, data, config.train, plan.recipe, VALIDATION, epochs=2, validate=True)
    save, left = Checkpoints.after_round, [3]  # in the second epoch: there is a best machine beside the members

    def after_round(self: Checkpoints, states: Mapping[str, FitState]) -> None:
        save(self, states)
        left[0] -= 1
        if left[0] == 0:
            assert all(isinstance(state.learnt, EnsembleLearnt) for state in states.values())
            raise Killed

    monkeypatch.setattr(Checkpoints, "after_round", after_round)
    with pytest.raises(Killed):
        fits().make(plan)
    resumed = fits().make(plan)
    assert left[0] == -1
    assert sha(resumed) == sha(whole)
    assert resumed.metrics == whole.metrics
    data.slices.unpersist()


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of the default loss with two members on planted tastes, up to its lists."""
    folder = tmp_path_factory.mktemp("ensemble")
    ratings = [f"{u + 1},{i + 1},{v},{10**5 * u + p}" for u, p, i, v in rows().iloc[:, :4].itertuples(index=False)]
    films = [f"{item + 1},Film {item} (2000),{'A' if item % 3 else 'A|B'}" for item in range(N_ITEMS)]
    path = csv_folder(folder / "input", ratings, films)
    keys = ["train.k=3", "train.epochs=3", "train.ensemble=2", "train.negatives=8", "train.tune_seconds=0"]
    config = load_config(overrides=[f"input.path='{path}'", f"tables.root='{folder / 'tables'}'", *keys])
    config = replace(config, run=replace(config.run, id="two"))
    for job in (events, train, recommend):
        job.run(spark, config)
    return config


def test_every_later_job_serves_one_machine(spark: SparkSession, run: Config) -> None:
    store = TableStore(spark, run.tables.root)
    model = store.read(FM_MODEL).where("model_version = 'fm-two'").first()
    assert (model["k"], model["hyperparameters"]["ensemble"]) == (6, "2")
    assert store.read(FM_PARAMETERS).select(F.size("factors").alias("n")).distinct().collect() == [(6,)]
    assert store.read(TOP_N).count() > 0
    assert 0.0 < evaluate.run(spark, run).metrics["fm"]["ndcg_at_10"] <= 1.0
