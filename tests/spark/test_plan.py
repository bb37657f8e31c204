"""The planner on Spark: predicted against measured bytes, what the session cannot hold, the plan job."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from fm_spark.config import Config, load_config
from fm_spark.core.event_cost import EventWorkload
from fm_spark.core.gradient import Settings
from fm_spark.core.planner import plan
from fm_spark.core.ranker_cost import RankerWorkload
from fm_spark.errors import CapacityError, ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.training.blocks import PUBLISH, STAGES, pack_slices
from fm_spark.training.capacity import check_fits, check_training
from fm_spark.training.event_data import event_data, find_users
from fm_spark.training.event_learner import EventLearner
from fm_spark.training.planning import cluster_of, overridden, plan_training
from fm_spark.training.ranker import RankerLearner
from fm_spark.training.recipes import event_candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.rounds import RoundKey, run_round
from jobs import plan as plan_job

GIVEN = ["plan.users=162541", "plan.events=25000095", "plan.positives=12500000", "plan.items=62423"]
N_ITEMS, N_USERS, BLOCKS, ROUNDS, TASKS = 700, 400, 12, 2, 3


def synthetic_events() -> pd.DataFrame:
    """Users with 5 to 60 events, items by Zipf's law, a third of the events liked."""
    rng = np.random.default_rng(3)
    law = 1.0 / np.arange(1, N_ITEMS + 1)
    rows = []
    for user in range(N_USERS):
        items = rng.choice(N_ITEMS, rng.integers(5, 60), replace=False, p=law / law.sum())
        liked = rng.random(len(items)) < 1 / 3
        rows += [
            (user, i, int(item), float(y), 1.0, "train") for i, (item, y) in enumerate(zip(items, liked, strict=True))
        ]
    return pd.DataFrame(rows, columns=["user_id", "position", "item_feature", "label", "weight", "split"])


def test_predicted_bytes_are_those_of_the_history(spark: SparkSession) -> None:
    rows = synthetic_events()
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string"
    slices = pack_slices(
        spark.createDataFrame(rows, schema), np.arange(N_ITEMS, dtype=np.int32), BLOCKS, ROUNDS, TASKS, (0.2, 3)
    )
    settings = Settings((0.5, 0.9), 0.1, 0.05, 0.0, 64, 16, 0.3)
    w = RankerWorkload(
        users=N_USERS, events=len(rows), positives=int(rows.label.sum()), items=N_ITEMS, side_features=0, k=8,
        decays=settings.decays, blocks=BLOCKS, rounds=ROUNDS, negatives=16, negatives_power=0.5, batch_size=64,
        chunk_size=64, fits=1, tasks=TASKS, executors=1, cores=2,
    )  # fmt: skip
    counts = np.bincount(rows.item_feature, minlength=N_ITEMS)
    liked = np.bincount(rows.item_feature[rows.label > 0], minlength=N_ITEMS)
    learner = RankerLearner(load_config(overrides=["train.k=8"]).train, settings.decays, PUBLISH, liked)
    learnt = learner.start()
    records = [
        run_round(spark.sparkContext, blocks, learner, learnt, settings, RoundKey(1, 0, r, BLOCKS))
        for r, blocks in enumerate(slices.rdds)
    ]
    slices.unpersist()
    measured = np.mean([record.bytes_aggregated for record in records])
    for predicted in (plan(w, counts.astype(float)), plan(w)):  # the law of popularity is the planner's own too
        assert predicted.transport.aggregated == pytest.approx(measured, rel=0.2)
        assert predicted.transport.broadcast == pytest.approx(records[0].bytes_broadcast, rel=0.2)


@pytest.mark.parametrize("loss", ["squared", "bpr"])
def test_predicted_bytes_of_single_events_are_those_of_the_history(spark: SparkSession, loss: str) -> None:
    rows = synthetic_events().assign(value=lambda r: 3.0 + r.label)
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string, value double"
    config = load_config(overrides=[f"train.loss={loss}", "train.k=8", "train.user=true"]).train
    events = spark.createDataFrame(rows, schema)
    users = find_users(events)
    items = np.arange(N_ITEMS, dtype=np.int32)
    slices = pack_slices(events, items, BLOCKS, ROUNDS, TASKS, (0.2, 3), values=True, users=users.ids)
    counts = np.bincount(rows.item_feature, minlength=N_ITEMS)
    liked = np.bincount(rows.item_feature[rows.label > 0], minlength=N_ITEMS)
    data = event_data(config, slices, users, None, dict.fromkeys(STAGES, counts))
    recipe = event_candidates(config, DataSize(1, 1, 1, 1))[0]
    learner = EventLearner(config, recipe.settings, PUBLISH, data, liked)
    learnt = learner.start()
    records = [
        run_round(spark.sparkContext, blocks, learner, learnt, recipe.settings, RoundKey(1, 0, r, BLOCKS))
        for r, blocks in enumerate(slices.rdds)
    ]
    slices.unpersist()
    w = EventWorkload(
        users=N_USERS, events=len(rows), positives=int(rows.label.sum()), items=N_ITEMS, side_features=0, k=8,
        blocks=BLOCKS, rounds=ROUNDS, fits=1, tasks=TASKS, executors=1, cores=2, loss=loss, user=True, bag=True,
        negatives=1, negatives_power=0.5,
    )  # fmt: skip
    made = plan(w, counts.astype(float)).transport
    assert made.aggregated == pytest.approx(np.mean([record.bytes_aggregated for record in records]), rel=0.2)
    assert made.broadcast == pytest.approx(records[0].bytes_broadcast, rel=0.2)


def test_what_the_session_cannot_hold_is_refused(spark: SparkSession) -> None:
    config = load_config(overrides=[*GIVEN, "train.k=512"])
    made = plan_training(config, overridden(config, None), cluster_of(spark))
    with pytest.raises(CapacityError, match=r"train.k = 512 with 62,423 items needs [\d.]+ GiB on the driver's heap, "):
        check_fits(made, spark)
    small = replace(made.workload, k=4, users=100, events=2_000, positives=1_000, items=50, blocks=1, rounds=1, tasks=1)
    check_fits(plan(small), spark)


def test_the_check_of_train_counts_the_catalogue(spark: SparkSession) -> None:
    n = 100_000
    ids = np.arange(n)
    titles = np.full(n, "", dtype=object)
    features = ids.astype(np.int32)
    catalogue = Catalogue(ids, titles, [[]] * n, np.full(n, 200), features, features, [None] * n, [{}] * n)
    size = DataSize(100_000, 16_000_000, 8_000_000, n)
    check_training(spark, load_config(overrides=["train.k=1"]), size, catalogue)
    with pytest.raises(CapacityError, match=r"train.k = 1024 with 100,000 items .*use train.k <= "):
        check_training(spark, load_config(overrides=["train.k=1024"]), size, catalogue)


def test_the_plan_job_needs_no_tables_when_counts_are_given(
    spark: SparkSession, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    given = load_config(overrides=[*GIVEN, f"tables.root='{config.tables.root}'", "plan.executors=4", "plan.cores=4"])
    made = plan_job.run(spark, given)
    assert (made.workload.items, made.workload.executors, made.workload.tasks) == (62_423, 4, 16)
    out = capsys.readouterr().out
    for expected in ("25,000,095", "train.blocks", "broadcast a round", "Python worker", "an epoch"):
        assert expected in out
    for setting in ("spark.driver.memory", "spark.driver.maxResultSize", "spark.executor.memoryOverhead"):
        assert f"--conf {setting}=" in out
    assert "fit here" not in out  # the plan is for another cluster than this session's


def test_the_plan_job_says_which_counts_are_missing(spark: SparkSession, config: Config) -> None:
    with pytest.raises(ConfigError, match=r"plan.users = 0.*give plan.users, plan.events"):
        plan_job.run(spark, config)


@pytest.mark.parametrize("loss", ["squared", "logistic", "bpr"])
def test_the_plan_job_knows_every_loss(spark: SparkSession, loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan_job.run(spark, load_config(overrides=[*GIVEN, f"train.loss={loss}"]))
    assert isinstance(made.workload, EventWorkload)
    assert loss in capsys.readouterr().out


def test_a_rating_model_that_cannot_fit_names_users_and_items(spark: SparkSession) -> None:
    config = load_config(overrides=[*GIVEN, "train.loss=squared", "train.k=512"])
    made = plan_training(config, overridden(config, None), cluster_of(spark))
    with pytest.raises(CapacityError, match=r"train.k = 512 with 162,541 users and 62,423 items needs [\d.]+ GiB on"):
        check_fits(made, spark)


def test_the_plan_job_counts_the_tables(spark: SparkSession, taste: Config, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan_job.run(spark, taste)
    out = capsys.readouterr().out
    assert f"{made.workload.events:,}" in out
    assert "Yes, in this session." in out
    assert made.workload.users > 0
    assert made.workload.items == len(made.counts)


def test_tasks_get_equal_numbers_of_blocks(spark: SparkSession) -> None:
    rows = synthetic_events()
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string"
    slices = pack_slices(
        spark.createDataFrame(rows, schema), np.arange(N_ITEMS, dtype=np.int32), BLOCKS, 1, TASKS, (0.2, 3)
    )
    assert slices.rdds[0].mapPartitions(lambda blocks: [len(list(blocks))]).collect() == [BLOCKS // TASKS] * TASKS
    slices.unpersist()
