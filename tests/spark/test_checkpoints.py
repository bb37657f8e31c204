"""Checkpoints: every bit survives, a killed run ends as if nothing had happened, damage and other settings are seen."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from fm_spark.config import Config, load_config
from fm_spark.core.parameters import Parameters
from fm_spark.core.side import SideFeatures
from fm_spark.errors import DivergenceError
from fm_spark.tables.add_files import files_of_partition
from fm_spark.tables.contracts import CHECKPOINTS
from fm_spark.tables.store import TableStore
from fm_spark.training import checkpoints as module
from fm_spark.training import trainer
from fm_spark.training.blocks import PUBLISH, VALIDATION, pack_slices
from fm_spark.training.checkpoints import Checkpoints, fingerprint
from fm_spark.training.fits import FitPlan, Fits, make_fits
from fm_spark.training.ranker import RankerLearnt, restore_ranker
from fm_spark.training.recipes import candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.rounds import RoundRecord
from fm_spark.training.run_data import data_size
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.states import arrays_of, describe_states, digest
from fm_spark.training.trainer import Best, Fit, FitState, HistoryRow, TrainingData, fit, start_state

N_ITEMS = 20
SIZE = DataSize(40, 400, 200, N_ITEMS, "0/0")
SIDE = sparse.csr_matrix((np.arange(2 * N_ITEMS).reshape(N_ITEMS, 2) % 3 == 0).astype(np.float32))
SETTINGS = ["train.k=4", "train.epochs=2", "train.blocks=2", "train.rounds=2", "train.negatives=8"]
NEVER = (0, 0.0)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def events(spark: SparkSession) -> DataFrame:
    """40 users with a taste: even users like even items."""
    rng = np.random.default_rng(0)
    rows = [
        (user, position, int(item), 3.0, float((user + item) % 2 == 0), 1.0, "train")
        for user in range(40)
        for position, item in enumerate(rng.permutation(N_ITEMS)[: rng.integers(10, 18)])
    ]
    names = ["user_id", "position", "item_feature", "value", "label", "weight", "split"]
    schema = "user_id bigint, position int, item_feature int, value double, label double, weight double, split string"
    return spark.createDataFrame(pd.DataFrame(rows, columns=names), schema)


@pytest.fixture(scope="module")
def data(events: DataFrame) -> Iterator[TrainingData]:
    slices = pack_slices(events, np.arange(N_ITEMS, dtype=np.int32), 2, 2, 2, (0.2, 3))
    yield TrainingData(slices, stage_counts(slices, N_ITEMS).liked, SIDE, 1.0)
    slices.unpersist()


@pytest.fixture(scope="module")
def settings() -> Config:
    return load_config(overrides=SETTINGS)


@pytest.fixture(scope="module")
def shared(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """One table for all tests, because Spark makes tables slowly; each test has runs of its own in it."""
    return TableStore(spark, str(tmp_path_factory.mktemp("checkpoints")))


class Runs(NamedTuple):
    """The store, and the name of a run that nobody else has."""

    store: TableStore
    config: Config
    run_id: str

    def checkpoints(self, config: Config | None = None, every: tuple[int, float] = NEVER, **other: str) -> Checkpoints:
        """The checkpoints of the run as a new process would open them."""
        run_id = other.get("run_id", self.run_id)
        own = fingerprint(run_id, config or self.config, other.get("events", "1/2"), "ab", {"numpy": "2"})
        return Checkpoints(self.store, run_id, own, every, partial(restore_ranker, x=SIDE))

    def rows(self) -> DataFrame:
        """The rows of the run."""
        return self.store.read(CHECKPOINTS).where(F.col("run_id") == self.run_id)


@pytest.fixture
def runs(shared: TableStore, settings: Config, request: pytest.FixtureRequest) -> Runs:
    return Runs(shared, settings, hashlib.sha256(request.node.name.encode()).hexdigest()[:8])


def some_states(seed: int = 0) -> dict[str, FitState]:
    """States with numbers that are hard to write down."""
    rng = np.random.default_rng(seed)

    def learnt() -> RankerLearnt:
        factors = rng.standard_normal((3 * N_ITEMS, 4)).astype(np.float32)
        factors[0] = [np.nan, np.inf, -0.0, np.float32(1e-42)]
        bias = rng.standard_normal(N_ITEMS).astype(np.float32)
        made = Parameters(factors, bias, rng.random(3 * N_ITEMS), rng.random(N_ITEMS))
        return RankerLearnt(made, SideFeatures(SIDE, factors[:2] + 1, bias[:2] + 1))

    record = RoundRecord(0.1 + 0.2, 1 / 3, 0.0, 1e-300, 5.5, 7, 2**40, 9)
    metrics = {"ndcg_at_10": float(np.nextafter(0.3, 1)), "recall_at_20": 0.0}
    history = [HistoryRow(VALIDATION, 1, 1, 1, record, None), HistoryRow(VALIDATION, 1, 1, 2, record, metrics)]
    done = FitState(learnt(), 3, 0, 1, Best(learnt(), 2, metrics), history).without_arrays()
    return {"tune-0": done, "tune-1": FitState(learnt(), 1, 1, 0, Best(learnt(), 1, metrics), history)}


def assert_same(found: Mapping[str, FitState], wanted: Mapping[str, FitState]) -> None:
    assert describe_states(found) == describe_states(wanted)
    assert list(found) == list(wanted)
    one, other = arrays_of(found), arrays_of(wanted)
    assert one.keys() == other.keys()
    assert digest(b"", one) == digest(b"", other)
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape)
        assert array.flags.writeable


def sha(fits: list[Fit]) -> list[str]:
    return [hashlib.sha256(b"".join(a.tobytes() for a in f.learnt.arrays().values())).hexdigest() for f in fits]


def test_every_bit_of_a_state_survives(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 100)
    saver = runs.checkpoints()
    assert saver.newest() == {}
    for seed in (1, 2, 3):
        saver.save(some_states(seed))
        made = runs.store.version(CHECKPOINTS)
        assert runs.store.version_of_run(CHECKPOINTS, runs.run_id) == made
    assert_same(runs.checkpoints().newest(), some_states(3))
    kept = {(row["slot"], row["number"]) for row in runs.rows().select("slot", "number").distinct().collect()}
    assert kept == {(0, 2), (1, 3)}
    assert runs.rows().agg(F.max(F.length("payload"))).first()[0] == 100
    before = runs.store.version(CHECKPOINTS)
    saver.save(some_states(4))
    assert runs.store.version(CHECKPOINTS) == before + 1


def test_one_runs_end_leaves_the_checkpoints_of_the_others(runs: Runs) -> None:
    mine, other = runs.checkpoints(), runs.checkpoints(run_id="r2")
    mine.save(some_states(1))
    other.save(some_states(2))
    mine.clear()
    assert runs.rows().count() == 0
    assert runs.checkpoints().newest() == {}
    assert_same(runs.checkpoints(run_id="r2").newest(), some_states(2))


@pytest.mark.parametrize("damage", ["a byte", "a part", "the file"])
def test_a_damaged_checkpoint_is_seen_and_the_older_one_used(
    runs: Runs, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 600)
    saver = runs.checkpoints()
    for seed in (1, 2):
        saver.save(some_states(seed))
    table, sql = f"delta.`{runs.store.path(CHECKPOINTS)}`", runs.store.spark.sql
    of_array = f"run_id = '{runs.run_id}' AND slot = 0 AND name = 'tune-1/best/factors' AND part = 1"
    if damage == "a byte":
        sql(f"UPDATE {table} SET payload = overlay(payload PLACING X'00' FROM 17) WHERE {of_array}")
    elif damage == "a part":
        sql(f"DELETE FROM {table} WHERE {of_array}")
    else:
        (name,) = files_of_partition(runs.store.path(CHECKPOINTS), {"run_id": runs.run_id, "slot": 0})
        file = Path(runs.store.path(CHECKPOINTS)) / name
        file.write_bytes(b"PAR1 is not all that there must be")
    again = runs.checkpoints()
    with caplog.at_level(logging.INFO, logger="fm_spark"):
        assert_same(again.newest(), some_states(1))
    assert f"slot 0 of run {runs.run_id} is damaged" in caplog.text
    assert "from checkpoint 1" in caplog.text
    again.save(some_states(3))  # takes the place of the damaged one
    assert_same(runs.checkpoints().newest(), some_states(3))


def test_other_settings_or_data_start_afresh(runs: Runs, settings: Config, caplog: pytest.LogCaptureFixture) -> None:
    runs.checkpoints().save(some_states())
    smaller = replace(settings, train=replace(settings.train, k=2, checkpoint_rounds=9))
    with caplog.at_level(logging.INFO, logger="fm_spark"):
        assert runs.checkpoints(smaller).newest() == {}
        assert runs.checkpoints(events="1/3").newest() == {}
    assert "train.k was 4 and is 2" in caplog.text
    assert "the events was 1/2 and is 1/3" in caplog.text
    assert "checkpoint_rounds" not in caplog.text
    # when to save and whether to try again changes no result
    often = replace(settings, train=replace(settings.train, checkpoint_rounds=9, retry_diverged=True))
    assert_same(runs.checkpoints(often).newest(), some_states())


def test_the_digest_of_the_events_sees_content_and_no_order(events: DataFrame) -> None:
    size = data_size(events)
    assert (size.users, size.items) == (40, N_ITEMS)
    assert data_size(events.orderBy(F.desc("item_feature")).repartition(3)) == size
    other = events.withColumn("weight", F.when(F.expr("user_id = 3 AND position = 2"), 2.0).otherwise(F.col("weight")))
    assert data_size(other) == replace(size, digest=data_size(other).digest)
    assert data_size(other).digest != size.digest


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    runs: Runs, settings: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sc = runs.store.spark.sparkContext
    tried, made = make_fits(sc, data, settings.train, SIZE, runs.checkpoints())
    assert runs.checkpoints().newest() == {}
    killed_in = kill_after_rounds(monkeypatch, [4, 5, 4, 7])
    while True:
        try:
            tried_again, again = make_fits(sc, data, settings.train, SIZE, runs.checkpoints(every=(3, 0.0)))
            break
        except Killed:
            pass
    assert killed_in == ["tune-0", "tune-1", "evaluation-0", "publish-0"]
    assert sha(again) == sha(made)
    for one, other in zip([*tried_again, *again], [*tried, *made], strict=True):
        assert (one.epochs, one.metrics, one.recipe) == (other.epochs, other.metrics, other.recipe)
        assert [(r.epoch, r.round, r.record.loss) for r in one.history] == [
            (r.epoch, r.round, r.record.loss) for r in other.history
        ]


def kill_after_rounds(monkeypatch: pytest.MonkeyPatch, rounds: list[int]) -> list[str]:
    """Ends the n-th run after so many rounds; returns the list of the fits in which that happened."""
    killed_in: list[str] = []
    left = list(rounds)
    save = Checkpoints.after_round

    def after_round(self: Checkpoints, states: Mapping[str, FitState]) -> None:
        save(self, states)
        if left:
            left[0] -= 1
            if left[0] == 0:
                left.pop(0)
                killed_in.append(list(states)[-1])
                raise Killed

    monkeypatch.setattr(Checkpoints, "after_round", after_round)
    return killed_in


def test_minutes_save_too_and_zero_is_never(runs: Runs) -> None:
    runs.checkpoints(every=NEVER).after_round(some_states())
    runs.checkpoints(every=(2, 60.0)).after_round(some_states())
    assert runs.checkpoints().newest() == {}
    runs.checkpoints(every=(0, 1e-9)).after_round(some_states())
    assert_same(runs.checkpoints().newest(), some_states())


def plan(config: Config) -> FitPlan:
    return FitPlan(PUBLISH, 0, candidates(config.train, SIZE)[0], 2)


def diverge_once(monkeypatch: pytest.MonkeyPatch, rate: float) -> list[tuple[int, int, float]]:
    """Lets epoch 2, round 2 diverge at the full rate; returns (epoch, round, rate) of the rounds that were begun."""
    begun = []
    run_round = trainer.run_round

    def round_or_divergence(*words: Any) -> RoundRecord:
        settings, key = words[4], words[5]
        begun.append((key.epoch + 1, key.round + 1, settings.learning_rate))
        if (key.epoch, key.round) == (1, 1) and settings.learning_rate > 0.6 * rate:
            raise trainer.diverged("the loss is nan", settings, key)
        return run_round(*words)

    monkeypatch.setattr(trainer, "run_round", round_or_divergence)
    return begun


@pytest.mark.parametrize("rounds", [0, 3])
def test_one_retry_at_half_the_rate_from_the_last_checkpoint(
    runs: Runs, settings: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    config = replace(settings.train, retry_diverged=True)
    wanted = plan(settings)
    rate = wanted.recipe.settings.learning_rate
    begun = diverge_once(monkeypatch, rate)
    made = Fits(runs.store.spark.sparkContext, data, config, runs.checkpoints(every=(rounds, 0.0))).make(wanted)
    again = [(epoch, number) for epoch, number, _ in begun[4:]]
    assert again == ([(2, 2)] if rounds else [(1, 1), (1, 2), (2, 1), (2, 2)])
    assert begun[-1][2] == pytest.approx(rate / 2 * wanted.recipe.learning_rate_decay)
    assert made.recipe.settings.learning_rate == rate / 2
    assert made.describe()["retries"] == "1"
    assert [(row.epoch, row.round) for row in made.history] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_without_a_retry_the_last_checkpoint_survives(
    runs: Runs, settings: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge_once(monkeypatch, plan(settings).recipe.settings.learning_rate)
    saver = runs.checkpoints(every=(3, 0.0))
    with pytest.raises(DivergenceError, match=r"epoch 2, round 2: the loss is nan.*train.learning_rate"):
        Fits(runs.store.spark.sparkContext, data, settings.train, saver).make(plan(settings))
    (state,) = runs.checkpoints().newest().values()
    assert (state.epoch, state.round) == (1, 1)


def test_the_second_divergence_ends_the_run(runs: Runs, settings: Config, data: TrainingData) -> None:
    config = replace(settings.train, retry_diverged=True, learning_rate=1e30)
    wild = FitPlan(PUBLISH, 0, candidates(config, SIZE)[0], 2)
    with pytest.raises(DivergenceError, match=r"learning rate 5e\+29"):
        Fits(runs.store.spark.sparkContext, data, config, runs.checkpoints()).make(wild)


@pytest.mark.parametrize(("value", "said"), [(2e4, "norm 40000"), (np.nan, "norm nan")])
def test_a_norm_out_of_bounds_is_divergence(
    spark: SparkSession, settings: Config, data: TrainingData, monkeypatch: pytest.MonkeyPatch, value: float, said: str
) -> None:
    wanted = plan(settings)
    state = start_state(data, settings.train, wanted.recipe, PUBLISH)
    state.learnt.arrays()["factors"][5] = value
    record = RoundRecord(1.0, 0.0, 0.0, 0.0, 0.0, 1, 1, 1)
    monkeypatch.setattr(trainer, "run_round", lambda *_: record)
    with pytest.raises(DivergenceError, match=f"epoch 1, round 1: a row of the parameters has {said}"):
        fit(spark.sparkContext, data, settings.train, wanted.recipe, PUBLISH, epochs=1, state=state)
