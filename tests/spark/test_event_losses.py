"""The losses of single events on Spark: the same bits, weights, resuming, and machines that know planted tastes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from event_inputs import as_arrow, csv_folder
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.config import Config, load_config
from fm_spark.core.event_gradient import init_state
from fm_spark.core.event_predictions import SnapshotMean
from fm_spark.core.fm_machine import FmMachine
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import select
from fm_spark.events.sequences import ordered_events, sequences_from_arrow
from fm_spark.ranking.inputs import RankingInputs, load_inputs
from fm_spark.tables.contracts import CHECKPOINTS, FM_MODEL, FM_PARAMETERS, TOP_N
from fm_spark.tables.runs import EVALUATION
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import PUBLISH, VALIDATION, Slices, pack_slices
from fm_spark.training.checkpoints import Checkpoints, fingerprint
from fm_spark.training.event_data import event_data, find_users, needs_rows
from fm_spark.training.event_learner import EventLearnt, restore_events
from fm_spark.training.fits import FitPlan, Fits
from fm_spark.training.recipes import event_candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.trainer import Fit, FitState, TrainingData, fit
from jobs import evaluate, events, recommend, train

N_USERS, N_ITEMS = 40, 24
SMALL = ["train.k=4", "train.epochs=2", "train.average_from=1"]


def rows() -> pd.DataFrame:
    """Users rate items of their taste (even users, even items) high, and others low; a bit of noise."""
    rng = np.random.default_rng(0)
    made = []
    for user in range(N_USERS):
        for position, item in enumerate(rng.permutation(N_ITEMS)[: rng.integers(14, 20)]):
            value = 3.0 + (1.5 if (user + item) % 2 == 0 else -1.5) + rng.integers(-1, 2) / 2
            made.append((user, position, int(item), value, float(value > 3), 1.0, "train"))
    names = ["user_id", "position", "item_feature", "value", "label", "weight", "split"]
    return pd.DataFrame(made, columns=names)


def in_spark(spark: SparkSession, frame: pd.DataFrame) -> DataFrame:
    schema = "user_id bigint, position int, item_feature int, value double, label double, weight double, split string"
    return spark.createDataFrame(frame, schema)


def pack(log: DataFrame, config: Config, partitions: int, blocks: int = 2, rounds: int = 2) -> TrainingData:
    users = find_users(log) if needs_rows(config.train) else None
    ids, places = users.ids if users else None, np.arange(N_ITEMS, dtype=np.int32)
    slices: Slices = pack_slices(log, places, blocks, rounds, partitions, (0.2, 3), values=True, users=ids)
    counts = stage_counts(slices, N_ITEMS)
    return TrainingData(slices, counts.liked, None, 1.0, event_data(config.train, slices, users, None, counts.seen()))


def fitted(spark: SparkSession, config: Config, data: TrainingData, stage: str = PUBLISH) -> Fit:
    recipe, validate = event_candidates(config.train, DataSize(1, 1, 1, 1))[0], stage == VALIDATION
    made = fit(spark.sparkContext, data, config.train, recipe, stage, epochs=recipe.epochs, validate=validate)
    data.slices.unpersist()
    return made


def sha(made: Fit) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in made.learnt.arrays().values())).hexdigest()


@pytest.mark.parametrize(
    ("loss", "local_steps"), [("squared", "on"), ("squared", "off"), ("logistic", "on"), ("bpr", "on")]
)
def test_same_bits_for_any_partitioning(spark: SparkSession, loss: str, local_steps: str) -> None:
    keys = ["train.k=4", "train.epochs=1", f"train.loss={loss}", f"train.local_steps={local_steps}"]
    config = load_config(overrides=keys)
    log = in_spark(spark, rows())
    found = {n: sha(fitted(spark, config, pack(log.repartition(n), config, n))) for n in (1, 2, 7)}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_weight_of_two_is_the_event_twice(spark: SparkSession, loss: str) -> None:
    # gradient sums, where an event that stands there twice is seen at the same parameters both times
    keys = ["train.local_steps=off", "train.bag=false", f"train.loss={loss}"]
    config = load_config(overrides=[*SMALL, *keys])
    once, heavy = rows(), rows()
    chosen = once["item_feature"] % 3 == 0
    heavy.loc[chosen, "weight"] = 2.0
    twice = pd.concat([once, once[chosen]], ignore_index=True)
    weighted, repeated = (
        fitted(spark, config, pack(in_spark(spark, frame), config, 2, 1, 1)).learnt.arrays() for frame in (heavy, twice)
    )
    plain = fitted(spark, config, pack(in_spark(spark, once), config, 2, 1, 1)).learnt.arrays()
    for name, array in weighted.items():
        np.testing.assert_allclose(array, repeated[name], atol=2e-5)
    assert np.abs(plain["factors"] - weighted["factors"]).max() > 1e-3


def test_every_array_of_a_state_survives() -> None:
    rng = np.random.default_rng(0)
    learnt = EventLearnt(
        FmParameters(rng.random((3, 2), np.float32), rng.random(4, np.float32)), init_state(3), SnapshotMean()
    )
    learnt.snapshots.add(learnt.parameters)
    again = restore_events(learnt.arrays())
    assert again.arrays().keys() == learnt.arrays().keys()
    assert all(np.array_equal(again.arrays()[name], array) for name, array in learnt.arrays().items())
    assert again.snapshots.count == 1
    assert restore_events(EventLearnt(learnt.parameters).arrays()).state is None


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("keys", [[], ["train.local_steps=off", "train.optimizer=adam"]])
def test_a_killed_fit_is_resumed_to_the_same_bits(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    config = load_config(overrides=[*SMALL, "train.loss=squared", *keys])
    data = pack(in_spark(spark, rows()), config, 2, rounds=1)
    store = TableStore(spark, str(tmp_path))
    plan = FitPlan(PUBLISH, 0, event_candidates(config.train, DataSize(1, 1, 1, 1))[0], 2)

    def checkpoints(run_id: str) -> Checkpoints:
        return Checkpoints(store, run_id, fingerprint(run_id, config, "1", "2", {}), (1, 0.0), restore_events)

    whole = fit(spark.sparkContext, data, config.train, plan.recipe, PUBLISH, epochs=2)
    save, left = Checkpoints.after_round, [1]

    def after_round(self: Checkpoints, states: Mapping[str, FitState]) -> None:
        save(self, states)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Checkpoints, "after_round", after_round)
    with pytest.raises(Killed):
        Fits(spark.sparkContext, data, config.train, checkpoints("cut")).make(plan)
    names = {row["name"] for row in store.read(CHECKPOINTS).where("run_id = 'cut'").select("name").collect()}
    assert "publish-0/now/snapshot_factors" in names
    resumed = Fits(spark.sparkContext, data, config.train, checkpoints("cut")).make(plan)
    assert left[0] == -1  # one round was left
    assert sha(resumed) == sha(whole)
    data.slices.unpersist()


@pytest.mark.parametrize(("loss", "metric", "bound"), [("logistic", "auc", 0.95), ("bpr", "ndcg_at_10", 0.65)])
def test_planted_tastes_are_learnt(spark: SparkSession, loss: str, metric: str, bound: float) -> None:
    keys = ["train.k=4", "train.epochs=30", "train.learning_rate=0.2", f"train.loss={loss}", "train.init_std=0.3"]
    config = load_config(overrides=[*keys, "train.user=true"])
    made = fitted(spark, config, pack(in_spark(spark, rows()), config, 1, 1, 1), VALIDATION)
    assert made.metrics[metric] > bound


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A rating run on planted tastes: trained, measured, recommended."""
    folder = tmp_path_factory.mktemp("ratings")
    made = rows()
    ratings = [f"{u + 1},{i + 1},{v},{100_000 * u + p}" for u, p, i, v in made.iloc[:, :4].itertuples(index=False)]
    films = [f"{item + 1},Film {item} (2000),{'A' if item % 3 else 'A|B'}" for item in range(N_ITEMS)]
    path = csv_folder(folder / "input", ratings, films)
    keys = ["train.loss=squared", "train.k=4", "train.epochs=15", "train.learning_rate=0.1", "train.init_std=0.3"]
    keys += ["train.refit=false", "train.tune_seconds=0"]
    config = load_config(overrides=[f"input.path='{path}'", f"tables.root='{folder / 'tables'}'", *keys])
    config = replace(config, run=replace(config.run, id="ratings"))
    for job in (events, train, recommend):
        job.run(spark, config)
    return config


@pytest.fixture(scope="module")
def inputs(spark: SparkSession, run: Config) -> RankingInputs:
    return load_inputs(TableStore(spark, run.tables.root), run, EVALUATION)


def slow_prediction(
    parameters: pd.DataFrame, w0: float, user: int, item: int, bag: list[int], genres: list[str]
) -> float:
    """The definition of the rating model, from the rows of fm_parameters."""
    table = parameters.set_index(["field", "value"])

    def vector(field: str, value: object) -> np.ndarray:
        return np.array(table.loc[(field, str(value)), "factors"], dtype=np.float64)

    static = [("user", user, 1.0), ("item", item, 1.0), *(("genre", g, len(genres) ** -0.5) for g in genres)]
    vectors = [x * vector(field, value) for field, value, x in static]
    y = w0 + sum(x * table.loc[(field, str(value)), "bias"] for field, value, x in static)
    y += sum(float(a @ b) for j, a in enumerate(vectors) for b in vectors[:j])
    history = sum(vector("bag", other) for other in bag) / np.sqrt(len(bag))
    return float(y + history @ sum(vectors[1:]))


def test_errors_are_those_of_the_saved_parameters(spark: SparkSession, run: Config, inputs: RankingInputs) -> None:
    result = evaluate.run(spark, run)
    store = TableStore(spark, run.tables.root)
    of_model = F.col("model_version") == "fm-ratings-eval"
    parameters = store.read(FM_PARAMETERS).where(of_model).toPandas()
    (w0,) = store.read(FM_MODEL).where(of_model).select("w0").first()
    log = inputs.events.toPandas().sort_values(["user_id", "position"])
    genres = dict(zip(inputs.catalogue.item_id, inputs.catalogue.genres, strict=True))
    known, later = log[log["split"] == "train"], log[log["split"] != "train"]
    errors = [
        np.clip(
            slow_prediction(
                parameters, w0, row.user_id, row.item_id, list(known.item_id[known.user_id == row.user_id]),
                genres[row.item_id],
            ),
            known.value.min(), known.value.max(),
        ) - row.value
        for row in later.itertuples()
    ]  # fmt: skip
    found = result.predictions
    assert found["fm"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-4)
    assert found["fm"]["mae"] == pytest.approx(np.mean(np.abs(errors)), abs=1e-4)
    constant = np.sqrt(np.mean(np.square(later.value - known.value.mean())))
    assert found["global_mean"]["rmse"] == pytest.approx(constant, abs=1e-6)
    assert found["fm"]["rmse"] < 0.7 < 1.2 < found["user_item_mean"]["rmse"]
    table = store.read(evaluate.EVALUATION).toPandas().set_index(["ranker", "metric"])
    assert table.loc[("fm", "predicted_events"), "value"] == len(later)
    assert table.loc[("fm", "rmse"), "users"] == later.user_id.nunique()
    assert ("popularity", "ndcg_at_10") in table.index


def test_lists_are_in_the_order_of_the_predicted_ratings(spark: SparkSession, run: Config) -> None:
    store = TableStore(spark, run.tables.root)
    of_model = F.col("model_version") == "fm-ratings"
    parameters = store.read(FM_PARAMETERS).where(of_model).toPandas()
    served = load_inputs(store, run, "publish")
    log = served.events.toPandas()
    genres = dict(zip(served.catalogue.item_id, served.catalogue.genres, strict=True))
    lists = store.read(TOP_N).where("user_id = 7").orderBy("rank").toPandas()
    bag = list(log.item_id[log.user_id == 7])
    assert set(lists.item_id) == set(range(1, N_ITEMS + 1)) - set(bag)
    said = [slow_prediction(parameters, 0.0, 7, item, bag, genres[item]) for item in lists.item_id]
    assert said == sorted(said, reverse=True)
    # scores leave out what is the same for all items of a user
    np.testing.assert_allclose(np.diff(said), np.diff(lists.score), atol=1e-4)


def test_an_unseen_user_is_served_by_the_items_alone(spark: SparkSession, inputs: RankingInputs) -> None:
    machine = inputs.machine
    assert isinstance(machine, FmMachine)
    ordered = as_arrow(ordered_events(inputs.events, 1, values=True))
    (block,) = sequences_from_arrow(ordered.to_batches(), inputs.catalogue.feature_to_item)
    nothing = select(block, np.zeros(len(block.item), np.bool_))
    nobody = nothing._replace(user=np.full(block.n_users, 999_999))
    assert not user_queries(nobody, machine).any()
    assert user_queries(block, machine).any(axis=1).all()
