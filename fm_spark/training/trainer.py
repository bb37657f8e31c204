"""The epoch loop: rounds, validation, early stopping; the only place where training goes round."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from scipy import sparse

from fm_spark.config_sections import TrainConfig
from fm_spark.core.gradient import Settings
from fm_spark.core.plan import Part
from fm_spark.progress import progress
from fm_spark.training.blocks import Slices
from fm_spark.training.context import ContextData
from fm_spark.training.ensemble import EnsembleLearner
from fm_spark.training.event_data import EventData
from fm_spark.training.event_learner import EventLearner
from fm_spark.training.learner import Learner, Learnt
from fm_spark.training.ranker import RankerLearner
from fm_spark.training.recipes import AnySettings, EventRates, Recipe
from fm_spark.training.resolve import METRIC_NAMES, is_better, validation_metric
from fm_spark.training.rounds import RoundKey, RoundRecord, diverged, run_round
from fm_spark.training.warm_start import WarmStart

log = logging.getLogger("fm_spark.train")

# Rows of trained machines have norms of about 1 to 10; nothing that ranks comes near this.
LARGEST_NORM = 1e4


@dataclass(frozen=True)
class TrainingData:
    """What every fit of a run shares.

    Attributes:
        count: stage -> int64 [n_items], positive events of each item that the stage may see.
        side: float32 CSR [n_items, n_side], side features of the items; None without any.
        validation_share: share of the users that validation ranks.
        events: what training on single events needs besides; None for ``softmax``.
        context: fields of time and of users' columns.
        warm: the old machines that training goes on from; None without ``train.warm_start``.
    """

    slices: Slices
    count: dict[str, npt.NDArray[np.int64]]
    side: sparse.csr_matrix | None
    validation_share: float
    events: EventData | None = None
    context: ContextData = field(default_factory=ContextData)
    warm: WarmStart | None = None


@dataclass(frozen=True)
class HistoryRow:
    """One row of ``training_history`` without its run."""

    stage: str
    candidate: int
    epoch: int
    round: int
    record: RoundRecord
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class Best:
    """What a fit had learnt after its best epoch (from 1) on the validation part."""

    learnt: Learnt
    epoch: int
    metrics: dict[str, float]


@dataclass
class FitState:
    """A fit under way: everything that its next round follows from, so everything that a checkpoint must hold.

    Attributes:
        epoch, round: of the next round, from 0.
        retries: how often training diverged and went on at half the rate.
        best: None without validation.
        history: one row per round so far.
    """

    learnt: Learnt
    epoch: int = 0
    round: int = 0
    retries: int = 0
    best: Best | None = None
    history: list[HistoryRow] = field(default_factory=list)

    def without_arrays(self) -> FitState:
        """The same with arrays of no rows: what remains of a candidate that was only tried."""
        best = replace(self.best, learnt=self.best.learnt.without_rows()) if self.best else None
        return replace(self, learnt=self.learnt.without_rows(), best=best)


@dataclass(frozen=True)
class Fit:
    """A trained machine.

    Attributes:
        recipe: the settings in force, with the learning rate as it was at the end.
        epochs: epochs that made ``learnt`` (the best ones with early stopping).
        metrics: validation metrics of that epoch; empty without validation.
        retries: how often training diverged and went on at half the rate.
        origin: what it went on from, as text; empty when it started from random rows.
    """

    recipe: Recipe[Any]
    learnt: Learnt
    epochs: int
    metrics: dict[str, float]
    history: list[HistoryRow]
    retries: int = 0
    origin: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, str]:
        """Setting -> value as text, for ``fm_model.hyperparameters``."""
        return {**self.recipe.describe(), "retries": str(self.retries), **self.origin}


def learner_of(data: TrainingData, config: TrainConfig, recipe: Recipe[Any], stage: str) -> Learner:
    """The kind of machine that ``train.loss`` names, or ``train.ensemble`` of them from consecutive seeds."""
    if config.ensemble > 1:
        alone = replace(config, ensemble=1)
        members = [replace(alone, seed=config.seed + m) for m in range(config.ensemble)]
        return EnsembleLearner([learner_of(data, member, recipe, stage) for member in members])
    if data.events is not None:
        rates, count = recipe.settings, data.count[stage]
        return EventLearner(config, rates, stage, data.events, count, data.validation_share, data.context)
    decays = recipe.settings.decays
    return RankerLearner(config, decays, stage, data.count[stage], data.side, data.validation_share, data.context)


def start_state(data: TrainingData, config: TrainConfig, recipe: Recipe[Any], stage: str) -> FitState:
    """A fit before its first round."""
    learnt = learner_of(data, config, recipe, stage).start()
    return FitState(learnt if data.warm is None else data.warm.start(stage, learnt))


def fit(
    sc: SparkContext,
    data: TrainingData,
    config: TrainConfig,
    recipe: Recipe[Any],
    stage: str,
    *,
    epochs: int,
    validate: bool = False,
    candidate: int = 0,
    state: FitState | None = None,
    after_round: Callable[[], None] | None = None,
) -> Fit:
    """Trains one machine from its random start, or from ``state``, which moves along.

    Args:
        epochs: how many, at most when ``validate`` is set: then training stops after ``train.patience`` epochs
            without a better ``train.validation_metric``, and the best parameters are returned.
        after_round: called when ``state`` is complete up to a round.

    Raises:
        DivergenceError: a loss or a parameter left the finite numbers, or a row grew beyond ``LARGEST_NORM``.
    """
    state = state or start_state(data, config, recipe, stage)
    recipe = recipe.slower(state.retries)
    learner = learner_of(data, config, recipe, stage)
    metric = validation_metric(config)
    slices = data.slices
    with progress(epochs, f"train {stage} {candidate + 1}" if validate else f"train {stage}") as bar:
        if state.epoch:
            bar.advance(state.epoch, note="done before the checkpoint")
        # snapshots that are yet to be averaged make the machine better: nothing is given up before
        first = recipe.settings.average_from if isinstance(recipe.settings, EventRates) else 0
        while not _finished(state, epochs, config.patience, first):
            settings = _of_round(recipe.at_epoch(state.epoch), slices, config.seed, state)
            key = RoundKey(config.seed, state.epoch, state.round, slices.n_blocks)
            last = state.history[-1].record if state.history else None
            record = run_round(sc, slices.of_round(state.round), learner, state.learnt, settings, key, last)
            _check_norms(state.learnt, settings, key)
            state.history.append(HistoryRow(stage, candidate, state.epoch + 1, state.round + 1, record, None))
            state.round += 1
            if state.round == slices.n_rounds:
                state.learnt = learner.end_epoch(state.learnt, settings, state.epoch)
                metrics = learner.metrics(sc, slices.rdds, state.learnt) if validate else None
                bar.advance(1, note=_note([row.record for row in state.history[-slices.n_rounds :]], metrics, metric))
                _end_epoch(state, learner, metrics, metric)
            if after_round is not None:
                after_round()
    return _result(recipe, learner, state)


def _of_round(settings: AnySettings, slices: Slices, seed: int, state: FitState) -> AnySettings:
    """With the part of the blocks' events that the round visits, where rounds share blocks."""
    if slices.parts == 1 or not isinstance(settings, Settings):
        return settings
    key = (seed << 32 | state.epoch) % 2**64
    part = Part(state.round // len(slices.rdds), slices.parts, key)
    return settings._replace(part=part)


def _finished(state: FitState, epochs: int, patience: int, first: int) -> bool:
    return state.epoch >= epochs or (state.best is not None and state.epoch - max(state.best.epoch, first) >= patience)


def _end_epoch(state: FitState, learner: Learner, metrics: dict[str, float] | None, metric: str) -> None:
    state.epoch, state.round = state.epoch + 1, 0
    if metrics is None:
        return
    state.history[-1] = replace(state.history[-1], metrics=metrics)
    if state.best is None or is_better(metric, metrics[metric], state.best.metrics[metric]):
        state.best = Best(learner.machine(state.learnt).copy(), state.epoch, metrics)


def _result(recipe: Recipe[Any], learner: Learner, state: FitState) -> Fit:
    best = state.best or Best(learner.machine(state.learnt), state.epoch, {})
    return Fit(recipe, best.learnt, best.epoch, best.metrics, state.history, state.retries)


def _check_norms(learnt: Learnt, settings: AnySettings, key: RoundKey) -> None:
    largest = learnt.largest_norm()
    # a NaN is kept, and the comparison fails for it
    if not largest <= LARGEST_NORM:
        raise diverged(f"a row of the parameters has norm {largest:g}, more than {LARGEST_NORM:g}", settings, key)


def _note(records: list[RoundRecord], metrics: dict[str, float] | None, metric: str) -> str:
    events = sum(record.events for record in records)
    loss = sum(record.loss * record.events for record in records) / max(1, events)
    seconds = sum(r.seconds_broadcast + r.seconds_aggregate + r.seconds_step for r in records)
    quality = f", validation {METRIC_NAMES[metric]} {metrics[metric]:.4f}" if metrics else ""
    return f"loss {loss:.3f}{quality}, {seconds:.1f} s"
