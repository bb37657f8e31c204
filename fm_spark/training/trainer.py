"""The epoch loop: rounds, validation, early stopping; the only place where training goes round."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark import SparkContext
from scipy import sparse

from fm_spark.config import TrainConfig
from fm_spark.core.gradient import make_sampler
from fm_spark.core.machine import Machine
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.side import SideFeatures, no_progress
from fm_spark.core.strategy import LocalSteps, Strategy, Synchronous
from fm_spark.progress import progress
from fm_spark.training.blocks import Slices
from fm_spark.training.resolve import Recipe
from fm_spark.training.rounds import RoundKey, RoundRecord, run_round
from fm_spark.training.validation import validation_metrics

log = logging.getLogger("fm_spark.train")


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
class Fit:
    """A trained machine.

    Attributes:
        epochs: epochs that made ``parameters`` (the best ones with early stopping).
        metrics: validation metrics of that epoch; empty without validation.
    """

    recipe: Recipe
    parameters: Parameters
    side: SideFeatures | None
    epochs: int
    metrics: dict[str, float]
    history: list[HistoryRow]


def machine_of(parameters: Parameters, decays: tuple[float, ...]) -> Machine:
    """The ranker that the parameters are; views, no copies."""
    n_items, k = parameters.n_items, parameters.factors.shape[1]
    history = parameters.factors[:-n_items].reshape(len(decays), 2, n_items, k)
    return Machine(np.array(decays), history, parameters.item_factors, parameters.bias)


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
) -> Fit:
    """Trains one machine from its random start.

    Args:
        epochs: how many, at most when ``validate`` is set: then training stops after ``train.patience`` epochs
            without a better ``train.validation_metric``, and the best parameters are returned.

    Raises:
        DivergenceError: a loss or a parameter left the finite numbers.
    """
    count = data.count[stage]
    parameters = init_parameters(len(recipe.settings.decays), count, config.k, config.init_std, config.seed)
    side = no_progress(data.side, config.k) if data.side is not None else None
    sampler = make_sampler(count, config.negatives_power)
    strategy: Strategy = LocalSteps(config.trust_region) if config.local_steps == "on" else Synchronous()
    history: list[HistoryRow] = []
    best = _Best(config.validation_metric, config.patience)
    n_rounds = len(data.slices.rdds)
    with progress(epochs, f"train {stage}") as bar:
        for epoch in range(epochs):
            settings = recipe.at_epoch(epoch)
            records = []
            for r, blocks in enumerate(data.slices.rdds):
                key = RoundKey(config.seed, epoch, r, data.slices.n_blocks)
                records.append(run_round(sc, blocks, stage, parameters, side, sampler, settings, strategy, key))
            metrics = None
            if validate:
                machine = machine_of(parameters, recipe.settings.decays)
                metrics = validation_metrics(sc, data.slices.rdds, machine, data.validation_share)
            history += [
                HistoryRow(stage, candidate, epoch + 1, r + 1, record, metrics if r + 1 == n_rounds else None)
                for r, record in enumerate(records)
            ]
            bar.advance(1, note=_note(records, metrics))
            if best.stops(metrics, epoch + 1, parameters, side):
                break
    if best.parameters is not None:
        return Fit(recipe, best.parameters, best.side, best.epoch, best.metrics, history)
    return Fit(recipe, parameters, side, epochs, {}, history)


class _Best:
    """Early stopping: keeps the best parameters and says when to give up."""

    def __init__(self, metric: str, patience: int) -> None:
        self._metric, self._patience = metric, patience
        self.parameters: Parameters | None = None
        self.side: SideFeatures | None = None
        self.epoch = 0
        self.metrics: dict[str, float] = {}

    def stops(
        self, metrics: dict[str, float] | None, epoch: int, parameters: Parameters, side: SideFeatures | None
    ) -> bool:
        if metrics is None:
            return False
        if self.parameters is None or metrics[self._metric] > self.metrics[self._metric]:
            self.parameters, self.side = copy.deepcopy((parameters, side))
            self.epoch, self.metrics = epoch, metrics
        return epoch - self.epoch >= self._patience


def _note(records: list[RoundRecord], metrics: dict[str, float] | None) -> str:
    events = sum(record.events for record in records)
    loss = sum(record.loss * record.events for record in records) / max(1, events)
    seconds = sum(r.seconds_broadcast + r.seconds_aggregate + r.seconds_step for r in records)
    quality = f", validation NDCG@10 {metrics['ndcg_at_10']:.4f}" if metrics else ""
    return f"loss {loss:.3f}{quality}, {seconds:.1f} s"
