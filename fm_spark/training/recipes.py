"""Settings of a fit with everything resolved, and the candidates that validation chooses from.

The rules and the measurements behind them are in docs/configuration.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from fm_spark.config_sections import TrainConfig
from fm_spark.core.constant_steps import EventSettings
from fm_spark.core.event_cost import epoch_seconds
from fm_spark.core.gradient import Settings
from fm_spark.core.pointwise_steps import Steps
from fm_spark.training.resolve import DataSize, most_epochs, uses_bag, uses_user

# One core's arithmetic: 4 flops a parameter and sampled item forwards and 8 backwards, at about 20 Gflop/s.
_SECONDS_PER_PRODUCT = 6e-10
# up to so many liked events (softmax) or events (squared, logistic) the settings for small data come first
_SMALL_POSITIVES, _SMALL_EVENTS = 200_000, 300_000


class EventRates(NamedTuple):
    """Settings of a machine over single events, everything resolved.

    Attributes:
        bias_rate, w0_rate: rates of the linear weights and of w0, as multiples of ``learning_rate``.
        l2, l2_bag, l2_bias, l2_w0: per touch of a row of the factors, of the bag, of a linear weight and of w0.
        average_from: the first epoch (from 1) whose snapshot is averaged; 0 = none.
        negatives: sampled items an event, with ``bpr``.
    """

    loss: str
    learning_rate: float
    bias_rate: float
    w0_rate: float
    l2: float
    l2_bag: float
    l2_bias: float
    l2_w0: float
    average_from: int
    negatives: int
    user: bool
    bag: bool

    def resolved(self) -> EventSettings:
        """What the kernels read."""
        rate = self.learning_rate
        rates = (self.w0_rate * rate, self.bias_rate * rate, rate)
        steps = (*rates, self.l2_w0, self.l2_bias, self.l2, self.l2_bag)
        return EventSettings(self.loss, Steps(*(np.float32(x) for x in steps)), self.negatives)


AnySettings = Settings | EventRates
S = TypeVar("S", Settings, EventRates)


@dataclass(frozen=True)
class Recipe(Generic[S]):
    """Settings with everything resolved, but for the number of epochs that validation chooses."""

    settings: S
    learning_rate_decay: float
    epochs: int

    def at_epoch(self, epoch: int) -> S:
        """Settings with the rate of an epoch (from 0)."""
        rate = self.settings.learning_rate * self.learning_rate_decay**epoch
        return self.settings._replace(learning_rate=rate)

    def slower(self, halvings: int) -> Recipe[S]:
        """The same at the learning rate halved so many times."""
        rate = self.settings.learning_rate * 0.5**halvings
        return replace(self, settings=self.settings._replace(learning_rate=rate))

    def describe(self) -> dict[str, str]:
        """Setting -> value as text, for ``fm_model.hyperparameters``."""
        values = {**self.settings._asdict(), "learning_rate_decay": self.learning_rate_decay}
        return {name: _as_text(value) for name, value in values.items() if name != "part"}


AnyRecipe = Recipe[Settings] | Recipe[EventRates]


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in value)
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"


def _chosen(value: Any, auto: Any) -> Any:
    return auto if value == "auto" else value


def recipes_to_try(config: TrainConfig, size: DataSize) -> list[AnyRecipe]:
    """The recipes of ``train.loss`` that validation compares, the rule's own choice first.

    How many are tried follows from the predicted cost and ``train.tune_seconds``, not from the clock, so that the
    same data and configuration always try the same ones.
    """
    recipes: list[AnyRecipe] = []
    for recipe in candidates(config, size) if config.loss == "softmax" else event_candidates(config, size):
        if recipe not in recipes:
            recipes.append(recipe)
    seconds = predicted_seconds(recipes[0], config.k * config.ensemble, size)
    return recipes[: max(1, int(config.tune_seconds / max(seconds, 1e-9)))]


def predicted_seconds(recipe: AnyRecipe, k: int, size: DataSize) -> float:
    """Seconds on one core that a fit takes: of ``softmax`` a dozen epochs, from the number of products alone."""
    settings = recipe.settings
    if isinstance(settings, EventRates):
        return recipe.epochs * epoch_seconds(settings.loss, k, size.events, size.positives * settings.negatives)
    return 12 * size.positives * settings.negatives * k * _SECONDS_PER_PRODUCT


# (decays, target_decay, l2, batch size, decay of the rate): the first was found on about 100,000 ratings, the last
# on 1,000,000 (design, section 4); more data carry finer time scales, farther targets and less regularisation.
_SMALL = ((0.8, 0.98), 0.3, 0.2, 256, 0.85)
_MIDDLE = ((0.3, 0.8, 0.98), 0.5, 0.1, 512, 0.85)
_LARGE = ((0.3, 0.8, 0.98), 0.7, 0.05, 1024, 0.8)
# learning rate and its decay with Adam on the driver (design, section 5)
_ADAM = (0.03, 0.7)


def candidates(config: TrainConfig, size: DataSize) -> list[Recipe[Settings]]:
    """Settings of ``softmax``."""
    by_size = [_SMALL, _MIDDLE] if size.positives < _SMALL_POSITIVES else [_LARGE, _MIDDLE]
    rate, slower = _ADAM if config.optimizer == "adam" else (0.1, None)
    recipes: list[Recipe[Settings]] = []
    for decays, target_decay, l2, batch_size, rate_decay in by_size:
        settings = Settings(
            decays=tuple(_chosen(config.decays, decays)),
            learning_rate=_chosen(config.learning_rate, rate),
            l2=_chosen(config.l2, l2),
            l2_bias=_chosen(config.l2_bias, 0.0),
            batch_size=_chosen(config.batch_size, batch_size),
            negatives=_chosen(config.negatives, 512 if size.positives < 5_000_000 else 256),
            target_decay=_chosen(config.target_decay, target_decay),
            bias_rate=_chosen(config.bias_rate, 1.0),
        )
        decay = _chosen(config.learning_rate_decay, slower or rate_decay)
        recipes.append(Recipe(settings, decay, most_epochs(config)))
    return recipes


class _Defaults(NamedTuple):
    """Rate of the factors and its decay an epoch, L2 of factors and of the bag: what depends on the data most."""

    rate: float
    decay: float
    l2: float
    l2_bag: float


# for small and for large data: found on validation parts of MovieLens 100K, of the bundled ratings and of MovieLens 1M
_BY_SIZE = {
    "squared": (_Defaults(0.03, 0.93, 0.06, 0.01), _Defaults(0.03, 0.93, 0.055, 0.001)),
    "logistic": (_Defaults(0.05, 0.95, 0.03, 0.01), _Defaults(0.05, 0.95, 0.025, 0.001)),
}
_BPR = _Defaults(0.05, 0.95, 0.005, 0.005)
# with the driver's steps: their sums of gradients weigh L2 otherwise
_BY_DRIVER = {
    "squared": _Defaults(0.1, 0.95, 0.07, 0.06),
    "logistic": _Defaults(0.1, 0.95, 0.03, 0.03),
    "bpr": _BPR._replace(rate=0.1),
}
_ADAM_RATE = 0.003
_L2_BIAS = {"squared": 0.02, "logistic": 0.005, "bpr": 0.02}
_BIAS_RATE = {"squared": 0.25, "logistic": 0.5, "bpr": 1.0}


def event_candidates(config: TrainConfig, size: DataSize) -> list[Recipe[EventRates]]:
    """Settings of a machine over single events: of ``squared`` and ``logistic`` for small and for large data."""
    if config.local_steps == "off":
        return [_event_recipe(config, _BY_DRIVER[config.loss])]
    if config.loss == "bpr":
        return [_event_recipe(config, _BPR)]
    small, large = _BY_SIZE[config.loss]
    by_size = (small, large) if size.events < _SMALL_EVENTS else (large, small)
    return [_event_recipe(config, defaults) for defaults in by_size]


def _event_recipe(config: TrainConfig, defaults: _Defaults) -> Recipe[EventRates]:
    loss, epochs, by_driver = config.loss, most_epochs(config), config.local_steps == "off"
    rates = EventRates(
        loss=loss,
        learning_rate=_chosen(config.learning_rate, _ADAM_RATE if config.optimizer == "adam" else defaults.rate),
        bias_rate=_chosen(config.bias_rate, 1.0 if by_driver else _BIAS_RATE[loss]),
        w0_rate=_chosen(config.w0_rate, 0.1),
        l2=_chosen(config.l2, defaults.l2),
        l2_bag=_chosen(config.l2_bag, defaults.l2_bag),
        l2_bias=_chosen(config.l2_bias, _L2_BIAS[loss]),
        l2_w0=config.l2_w0,
        average_from=_chosen(config.average_from, max(1, epochs // 3)),
        negatives=_chosen(config.negatives, 1),
        user=uses_user(config),
        bag=uses_bag(config),
    )
    return Recipe(rates, _chosen(config.learning_rate_decay, defaults.decay), epochs)
