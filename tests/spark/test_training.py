"""Training on Spark: the same bits for any partitioning, what a stage may see, saved machines."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from fm_spark.config import Config, load_config
from fm_spark.core.gradient import Settings
from fm_spark.core.sequences import TEST, TRAIN
from fm_spark.errors import DivergenceError
from fm_spark.training.blocks import EVALUATION, PUBLISH, VALIDATION, Block, Slices, pack_slices
from fm_spark.training.checkpoints import Checkpoints
from fm_spark.training.fits import make_fits
from fm_spark.training.recipes import Recipe, recipes_to_try
from fm_spark.training.resolve import DataSize, block_count, round_count, shares_users
from fm_spark.training.rounds import tree_depth
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.trainer import Fit, FitState, TrainingData, fit

N_ITEMS = 30
FEATURE_TO_ITEM = np.arange(N_ITEMS, dtype=np.int32)
RECIPE = Recipe(Settings((0.5, 0.9), 0.1, 0.05, 0.0, 32, 16, 0.3), 0.9, 3)


@pytest.fixture(scope="module")
def events(spark: SparkSession) -> DataFrame:
    """60 users with a taste: even users like even items."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        seen = rng.permutation(N_ITEMS)[: rng.integers(8, 25)]
        for position, item in enumerate(seen):
            split = "train" if position < 0.8 * len(seen) else "test"
            rows.append((user, position, int(item), float((user + item) % 2 == 0), 1.0, split))
    names = ["user_id", "position", "item_feature", "label", "weight", "split"]
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string"
    return spark.createDataFrame(pd.DataFrame(rows, columns=names), schema)


def pack(events: DataFrame, blocks: int, rounds: int, partitions: int, parts: int = 1) -> Slices:
    return pack_slices(events, FEATURE_TO_ITEM, blocks, rounds, partitions, (0.2, 3), parts=parts)


def train(
    spark: SparkSession, slices: Slices, config: Config, recipe: Recipe[Settings] = RECIPE, validate: bool = False
) -> Fit:
    data = TrainingData(slices, stage_counts(slices, N_ITEMS).liked, None, 1.0)
    stage = VALIDATION if validate else PUBLISH
    return fit(spark.sparkContext, data, config.train, recipe, stage, epochs=recipe.epochs, validate=validate)


def digest(fitted: Fit) -> str:
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(a).tobytes() for a in fitted.learnt.arrays().values())
    ).hexdigest()


@pytest.mark.parametrize(("local_steps", "optimizer"), [("on", "adagrad"), ("off", "adagrad"), ("off", "adam")])
def test_same_bits_for_any_partitioning(
    spark: SparkSession, events: DataFrame, local_steps: str, optimizer: str
) -> None:
    config = load_config(overrides=["train.k=4", f"train.local_steps={local_steps}", f"train.optimizer={optimizer}"])
    found = set()
    for partitions in (1, 2, 7):
        slices = pack(events.repartition(partitions), 4, 2, partitions)
        found.add(digest(train(spark, slices, config)))
        slices.unpersist()
    assert len(found) == 1
    other = replace(config, train=replace(config.train, seed=2))
    slices = pack(events, 4, 2, 2)
    assert digest(train(spark, slices, other)) not in found
    slices.unpersist()


def test_rounds_that_share_users_visit_every_event_once(spark: SparkSession, events: DataFrame) -> None:
    config = load_config(overrides=["train.k=4"])
    found = set()
    for partitions in (1, 3):
        slices = pack(events, 4, 3, partitions, parts=3)
        fitted = train(spark, slices, config)
        found.add(digest(fitted))
        slices.unpersist()
    assert len(found) == 1
    liked = events.where("label > 0").count()
    for epoch in range(1, RECIPE.epochs + 1):
        of_epoch = [row.record.events for row in fitted.history if row.epoch == epoch]
        assert len(of_epoch) == 3
        assert sum(of_epoch) == liked
        assert max(of_epoch) < liked


def test_synchronous_rounds_do_not_depend_on_the_number_of_blocks(spark: SparkSession, events: DataFrame) -> None:
    config = load_config(overrides=["train.k=4", "train.local_steps=off"])
    found = set()
    for blocks in (1, 3):
        slices = pack(events, blocks, 2, 2)
        found.add(digest(train(spark, slices, config)))
        slices.unpersist()
    assert len(found) == 1


def test_a_stage_sees_what_it_may(spark: SparkSession, events: DataFrame) -> None:
    slices = pack(events, 2, 1, 2)
    blocks = slices.rdds[0].collect()
    assert sorted(block.number for block in blocks) == [0, 1]
    total = {stage: sum(len(b.view(stage).item) for b in blocks) for stage in (VALIDATION, EVALUATION, PUBLISH)}
    rows = events.toPandas()
    assert total[PUBLISH] == len(rows)
    assert total[EVALUATION] == (rows.split == "train").sum()
    assert 0 < total[VALIDATION] < total[EVALUATION]
    for block in blocks:
        check_block(block)
    slices.unpersist()


def check_block(block: Block) -> None:
    s = block.sequences
    held = block.validation == TEST
    assert held.any()
    assert np.all(s.part[held] == TRAIN)
    assert np.all(s.liked[held] == 1)
    for u in range(s.n_users):
        mine = slice(s.ptr[u], s.ptr[u + 1])
        known = np.flatnonzero(block.validation[mine] == 0)
        tail = np.flatnonzero(held[mine])
        assert len(tail) == 0 or known.max() < tail.min()


def test_early_stopping_keeps_the_best_epoch(spark: SparkSession, events: DataFrame) -> None:
    config = load_config(overrides=["train.k=4", "train.patience=2"])
    slices = pack(events, 1, 1, 1)
    fitted = train(spark, slices, config, replace(RECIPE, epochs=8), validate=True)
    values = [row.metrics["ndcg_at_10"] for row in fitted.history if row.metrics]
    assert fitted.metrics["ndcg_at_10"] == max(values)
    assert fitted.epochs == 1 + int(np.argmax(values))
    assert len(values) <= fitted.epochs + 2
    # the parameters of the best epoch, not of the last one
    data = TrainingData(slices, stage_counts(slices, N_ITEMS).liked, None, 1.0)
    again = fit(spark.sparkContext, data, config.train, RECIPE, VALIDATION, epochs=fitted.epochs)
    assert digest(again) == digest(fitted)
    slices.unpersist()


def test_training_learns_the_taste(spark: SparkSession, events: DataFrame) -> None:
    config = load_config(overrides=["train.k=4"])
    slices = pack(events, 1, 1, 1)
    fitted = train(spark, slices, config, replace(RECIPE, epochs=15))
    losses = [row.record.loss for row in fitted.history]
    # 16 negatives: chance is log(17) = 2.83; who knows that only half of the items compete reaches log(9) = 2.20
    assert losses[-1] < 2.3
    record = fitted.history[0].record
    assert record.bytes_aggregated > 0
    assert record.bytes_broadcast >= sum(array.nbytes for array in fitted.learnt.arrays().values())
    slices.unpersist()


class _NoCheckpoints:
    """Stands for checkpoints that hold nothing and are never due."""

    def newest(self) -> dict[str, FitState]:
        return {}

    def after_round(self, states: object) -> None:
        pass


def test_fits_side_by_side_end_with_the_same_bits(spark: SparkSession, events: DataFrame) -> None:
    slices = pack(events, 1, 1, 1)
    data = TrainingData(slices, stage_counts(slices, N_ITEMS).liked, None, 1.0)
    found = []
    for checkpoint_rounds in (0, 1000):  # 0: side by side; saving by rounds asks for one after the other
        overrides = ["train.k=4", "train.epochs=3", f"train.checkpoint_rounds={checkpoint_rounds}"]
        size = DataSize(60, 900, 450, N_ITEMS)
        nothing = cast(Checkpoints, _NoCheckpoints())
        tried, made = make_fits(spark.sparkContext, data, load_config(overrides=overrides).train, size, nothing)
        assert (len(tried), len(made)) == (2, 2)
        found.append([digest(one) for one in made] + [one.metrics["ndcg_at_10"] for one in tried])
    assert found[0] == found[1]
    slices.unpersist()


def test_divergence_names_the_epoch_and_the_cure(spark: SparkSession, events: DataFrame) -> None:
    config = load_config(overrides=["train.k=4"])
    wild = replace(RECIPE, settings=RECIPE.settings._replace(learning_rate=1e30))
    slices = pack(events, 1, 1, 1)
    with pytest.raises(DivergenceError, match=r"epoch 1, round 1.*train.learning_rate"):
        train(spark, slices, config, wild)
    slices.unpersist()


def test_sums_go_through_a_tree_of_tasks_when_they_are_many_or_large() -> None:
    assert [tree_depth(partitions, 0) for partitions in (1, 16, 17)] == [1, 1, 2]
    assert [tree_depth(4, size) for size in (2**28, 2**28 + 1)] == [1, 2]


def test_auto_follows_from_the_size() -> None:
    config = load_config().train
    small, large = DataSize(600, 80_000, 40_000, 6_000), DataSize(160_000, 20_000_000, 10_000_000, 40_000)
    assert (block_count(config, small), round_count(config, small, 1)) == (1, 1)
    assert block_count(config, large) == 40
    middle = DataSize(6_040, 900_000, 500_000, 3_700)
    assert block_count(config, middle) == block_count(load_config(overrides=["train.loss=squared"]).train, middle) == 1
    assert block_count(config, DataSize(6_040, 2_000_000, 1_000_000, 3_700)) == 4
    assert 10 <= round_count(config, large, 40) <= 100
    assert len(recipes_to_try(config, small)) > len(recipes_to_try(config, large)) == 1
    assert shares_users(config, small, 8, 25)
    assert not shares_users(config, small, 8, 1)
    assert not shares_users(config, large, 40, 100)
    assert not shares_users(load_config(overrides=["train.loss=bpr"]).train, small, 8, 25)
    fixed = load_config(overrides=["train.decays=[0.5]", "train.l2=0.01", "train.blocks=3"]).train
    assert {recipe.settings.decays for recipe in recipes_to_try(fixed, small)} == {(0.5,)}
    assert block_count(fixed, large) == 3
