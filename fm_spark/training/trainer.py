"""The epoch loop: rounds, validation, early stopping; the only place where training goes round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from scipy import sparse

from fm_spark.config import TrainConfig
from fm_spark.core.gradient import Settings, make_sampler
from fm_spark.core.machine import Machine
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.side import SideFeatures, no_progress
from fm_spark.core.strategy import LocalSteps, Strategy, Synchronous
from fm_spark.progress import progress
from fm_spark.training.blocks import Slices
from fm_spark.training.resolve import Recipe
from fm_spark.training.rounds import RoundKey, RoundRecord, diverged, run_round
from fm_spark.training.validation import validation_metrics

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
    """

    slices: Slices
    count: dict[str, npt.NDArray[np.int64]]
    side: sparse.csr_matrix | None
    validation_share: float


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

    parameters: Parameters
    side: SideFeatures | None
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

    parameters: Parameters
    side: SideFeatures | None
    epoch: int = 0
    round: int = 0
    retries: int = 0
    best: Best | None = None
    history: list[HistoryRow] = field(default_factory=list)

    def without_arrays(self) -> FitState:
        """The same with arrays of no rows: what remains of a candidate that was only tried."""
        none = Parameters._make(array[:0] for array in self.parameters)
        best = replace(self.best, parameters=none, side=None) if self.best else None
        return replace(self, parameters=none, side=None, best=best)


@dataclass(frozen=True)
class Fit:
    """A trained machine.

    Attributes:
        recipe: the settings in force, with the learning rate as it was at the end.
        epochs: epochs that made ``parameters`` (the best ones with early stopping).
        metrics: validation metrics of that epoch; empty without validation.
        retries: how often training diverged and went on at half the rate.
    """

    recipe: Recipe
    parameters: Parameters
    side: SideFeatures | None
    epochs: int
    metrics: dict[str, float]
    history: list[HistoryRow]
    retries: int = 0

    def describe(self) -> dict[str, str]:
        """Setting -> value as text, for ``fm_model.hyperparameters``."""
        return {**self.recipe.describe(), "retries": str(self.retries)}


def machine_of(parameters: Parameters, decays: tuple[float, ...]) -> Machine:
    """The ranker that the parameters are; views, no copies."""
    n_items, k = parameters.n_items, parameters.factors.shape[1]
    history = parameters.factors[:-n_items].reshape(len(decays), 2, n_items, k)
    return Machine(np.array(decays), history, parameters.item_factors, parameters.bias)


def start_state(data: TrainingData, config: TrainConfig, recipe: Recipe, stage: str) -> FitState:
    """A fit before its first round: random factors, side features that have learnt nothing."""
    decays = recipe.settings.decays
    parameters = init_parameters(len(decays), data.count[stage], config.k, config.init_std, config.seed)
    return FitState(parameters, no_progress(data.side, config.k) if data.side is not None else None)


def fit(
    sc: SparkContext,
    data: TrainingData,
    config: TrainConfig,
    recipe: Recipe,
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
    sampler = make_sampler(data.count[stage], config.negatives_power)
    strategy: Strategy = LocalSteps(config.trust_region) if config.local_steps == "on" else Synchronous()
    rdds = data.slices.rdds
    with progress(epochs, f"train {stage} {candidate + 1}" if validate else f"train {stage}") as bar:
        if state.epoch:
            bar.advance(state.epoch, note="done before the checkpoint")
        while not _finished(state, epochs, config.patience):
            settings = recipe.at_epoch(state.epoch)
            key = RoundKey(config.seed, state.epoch, state.round, data.slices.n_blocks)
            blocks = rdds[state.round]
            record = run_round(sc, blocks, stage, state.parameters, state.side, sampler, settings, strategy, key)
            _check_norms(state.parameters, settings, key)
            state.history.append(HistoryRow(stage, candidate, state.epoch + 1, state.round + 1, record, None))
            state.round += 1
            if state.round == len(rdds):
                machine = machine_of(state.parameters, recipe.settings.decays)
                metrics = validation_metrics(sc, rdds, machine, data.validation_share) if validate else None
                bar.advance(1, note=_note([row.record for row in state.history[-len(rdds) :]], metrics))
                _end_epoch(state, metrics, config.validation_metric)
            if after_round is not None:
                after_round()
    return _result(recipe, state)


def _finished(state: FitState, epochs: int, patience: int) -> bool:
    return state.epoch >= epochs or (state.best is not None and state.epoch - state.best.epoch >= patience)


def _end_epoch(state: FitState, metrics: dict[str, float] | None, metric: str) -> None:
    state.epoch, state.round = state.epoch + 1, 0
    if metrics is None:
        return
    state.history[-1] = replace(state.history[-1], metrics=metrics)
    if state.best is None or metrics[metric] > state.best.metrics[metric]:
        parameters = Parameters._make(array.copy() for array in state.parameters)
        side = state.side
        if side is not None:
            side = side._replace(factors=side.factors.copy(), bias=side.bias.copy())
        state.best = Best(parameters, side, state.epoch, metrics)


def _result(recipe: Recipe, state: FitState) -> Fit:
    best = state.best or Best(state.parameters, state.side, state.epoch, {})
    return Fit(recipe, best.parameters, best.side, best.epoch, best.metrics, state.history, state.retries)


def _check_norms(parameters: Parameters, settings: Settings, key: RoundKey) -> None:
    squares = np.einsum("rk,rk->r", parameters.factors, parameters.factors)
    largest = np.maximum(np.sqrt(squares.max(initial=0.0)), np.abs(parameters.bias).max(initial=0.0))
    # numpy's maxima keep a NaN, and the comparison fails for it
    if not largest <= LARGEST_NORM:
        raise diverged(f"a row of the parameters has norm {largest:g}, more than {LARGEST_NORM:g}", settings, key)


def _note(records: list[RoundRecord], metrics: dict[str, float] | None) -> str:
    events = sum(record.events for record in records)
    loss = sum(record.loss * record.events for record in records) / max(1, events)
    seconds = sum(r.seconds_broadcast + r.seconds_aggregate + r.seconds_step for r in records)
    quality = f", validation NDCG@10 {metrics['ndcg_at_10']:.4f}" if metrics else ""
    return f"loss {loss:.3f}{quality}, {seconds:.1f} s"
