"""The fits of a run, in order: candidates on the validation part, the machine that is measured, the published one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pyspark import SparkContext

from fm_spark.config_sections import TrainConfig
from fm_spark.errors import DivergenceError
from fm_spark.parallel import side_by_side
from fm_spark.training.blocks import EVALUATION, PUBLISH, VALIDATION
from fm_spark.training.checkpoints import Checkpoints
from fm_spark.training.recipes import AnyRecipe, recipes_to_try
from fm_spark.training.resolve import DataSize, is_better, most_epochs, validation_metric
from fm_spark.training.trainer import Fit, FitState, TrainingData, fit, start_state

log = logging.getLogger("fm_spark.train")

# when there is nothing to validate on: too few positives to cut a tail from
_EPOCHS_WITHOUT_VALIDATION = 10


@dataclass(frozen=True)
class FitPlan:
    """One fit that a run makes; ``name`` tells it from the run's others."""

    stage: str
    candidate: int
    recipe: AnyRecipe
    epochs: int

    @property
    def name(self) -> str:
        """For example ``tune-1`` or ``publish-0``."""
        return f"{self.stage}-{self.candidate}"


class Fits:
    """Makes the fits of one run, each once: what a checkpoint holds of them is not made again."""

    def __init__(self, sc: SparkContext, data: TrainingData, config: TrainConfig, checkpoints: Checkpoints) -> None:
        self._sc, self._data, self._config, self._checkpoints = sc, data, config, checkpoints
        # A fit of one block keeps one core busy; small fits are not saved half-way unless that is asked for.
        self._side_by_side = data.slices.n_blocks == 1 and config.checkpoint_rounds == 0
        self._states: dict[str, FitState] = checkpoints.newest()

    def make_all(self, plans: list[FitPlan], make: Callable[[FitPlan], Fit]) -> list[Fit]:
        """Makes fits that do not need each other: one after the other, or side by side when each is one task a round.

        Args:
            make: :meth:`make` or :meth:`try_out`.
        """
        if not self._side_by_side or len(plans) < 2:
            return [make(plan) for plan in plans]
        made = list(side_by_side({plan.name: partial(make, plan) for plan in plans}).values())
        self._checkpoints.after_round(self._states)
        return made

    def make(self, plan: FitPlan) -> Fit:
        """Makes a fit from its start or from where it was left.

        Raises:
            DivergenceError: training left the finite numbers, with ``train.retry_diverged`` for the second time.
        """
        if plan.name not in self._states:
            self._states[plan.name] = self._start(plan)
        try:
            return self._continue(plan)
        except DivergenceError as error:
            if not self._config.retry_diverged or self._states[plan.name].retries:
                raise
            log.warning("%s", error)
            self._states[plan.name] = self._second_try(plan)
            return self._continue(plan)

    def try_out(self, plan: FitPlan) -> Fit:
        """Makes a fit for its metrics alone: its parameters are dropped, here and in the checkpoints to come."""
        made = self.make(plan)
        self._states[plan.name] = left = self._states[plan.name].without_arrays()
        return replace(made, learnt=left.learnt)

    def _start(self, plan: FitPlan) -> FitState:
        return start_state(self._data, self._config, plan.recipe, plan.stage)

    def _continue(self, plan: FitPlan) -> Fit:
        return fit(
            self._sc,
            self._data,
            self._config,
            plan.recipe,
            plan.stage,
            epochs=plan.epochs,
            validate=plan.stage == VALIDATION,
            candidate=plan.candidate,
            state=self._states[plan.name],
            after_round=None if self._side_by_side else lambda: self._checkpoints.after_round(self._states),
        )

    def _second_try(self, plan: FitPlan) -> FitState:
        state = self._checkpoints.newest().get(plan.name) or self._start(plan)
        state.retries += 1
        log.warning("trying once more at half the rate from epoch %d, round %d", state.epoch + 1, state.round + 1)
        return state


def make_fits(
    sc: SparkContext, data: TrainingData, config: TrainConfig, size: DataSize, checkpoints: Checkpoints
) -> tuple[list[Fit], list[Fit]]:
    """Returns the fits that were tried on the validation part, and the one measured and the one published.

    With ``train.warm_start`` nothing is tried: the settings are those of the old machine.

    Raises:
        DivergenceError: training left the finite numbers.
    """
    fits = Fits(sc, data, config, checkpoints)
    stages = (EVALUATION, PUBLISH) if config.refit else (EVALUATION,)
    if data.warm is not None:
        (recipe, *_), warm = recipes_to_try(config, size), data.warm
        made = fits.make_all([FitPlan(stage, 0, recipe, recipe.epochs) for stage in stages], fits.make)
        return [], [replace(one, origin=warm.describe(stage)) for one, stage in zip(made, stages, strict=True)]
    tried, metric = _try_candidates(fits, config, size), validation_metric(config)
    best = tried[0]
    for one in tried[1:]:
        if one.metrics and (not best.metrics or is_better(metric, one.metrics[metric], best.metrics[metric])):
            best = one
    epochs = best.epochs if best.metrics else min(most_epochs(config), _EPOCHS_WITHOUT_VALIDATION)
    log.info("chosen: %d epochs of %s", epochs, _settings(best.recipe))
    made = fits.make_all([FitPlan(stage, 0, best.recipe, epochs) for stage in stages], fits.make)
    return tried, [replace(one, metrics=best.metrics, retries=best.retries + one.retries) for one in made]


def _try_candidates(fits: Fits, config: TrainConfig, size: DataSize) -> list[Fit]:
    recipes = recipes_to_try(config, size)
    for number, recipe in enumerate(recipes):
        log.info("candidate %d of %d: %s", number + 1, len(recipes), _settings(recipe))
    plans = [FitPlan(VALIDATION, number, recipe, recipe.epochs) for number, recipe in enumerate(recipes)]
    return fits.make_all(plans, fits.try_out)


def _settings(recipe: AnyRecipe) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.describe().items())
