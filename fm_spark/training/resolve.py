"""What ``auto`` means: settings that follow from the size of the data, and candidates for validation to choose from.

The rules and the measurements behind them are in docs/configuration.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from fm_spark.config_sections import TrainConfig
from fm_spark.core.constant_steps import POINTWISE, EventSettings
from fm_spark.core.gradient import Settings
from fm_spark.core.pointwise_steps import Steps

# One core's arithmetic: 4 flops a parameter and sampled item forwards and 8 backwards, at about 20 Gflop/s.
_SECONDS_PER_PRODUCT = 6e-10
_W0_SHARE = 0.1

RANKING_METRICS = ("ndcg_at_10", "recall_at_20")
METRIC_NAMES = {"ndcg_at_10": "NDCG@10", "recall_at_20": "Recall@20", "rmse": "RMSE", "log_loss": "log loss"}
_LESS_IS_BETTER = ("rmse", "log_loss")


@dataclass(frozen=True)
class DataSize:
    """Counts of the training part.

    Attributes:
        positives: liked training events; items: items of the catalogue with one at least.
        digest: of all events, training part or not, whatever their order.
    """

    users: int
    events: int
    positives: int
    items: int
    digest: str = ""


class EventRates(NamedTuple):
    """Settings of a machine over single events, everything resolved.

    Attributes:
        l2, l2_bag, l2_bias: per touch of a row of the factors, of the bag, and of a linear weight.
        average_from: the first epoch (from 1) whose snapshot is averaged; 0 = none.
        negatives: sampled items an event, with ``bpr``.
    """

    loss: str
    learning_rate: float
    l2: float
    l2_bag: float
    l2_bias: float
    average_from: int
    negatives: int
    user: bool
    bag: bool

    def resolved(self) -> EventSettings:
        """What the kernels read. w0 is the mean of all events: it gets small steps and no L2."""
        rate, l2 = self.learning_rate, self.l2
        steps = (_W0_SHARE * rate, rate, rate, 0.0, self.l2_bias, l2, self.l2_bag)
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


# (decays, target_decay, l2, batch size, decay of the rate): the first was found on about 100,000 ratings, the last
# on 1,000,000 (design, section 4); more data carry finer time scales, farther targets and less regularisation.
_SMALL = ((0.8, 0.98), 0.3, 0.2, 256, 0.85)
_MIDDLE = ((0.3, 0.8, 0.98), 0.5, 0.1, 512, 0.85)
_LARGE = ((0.3, 0.8, 0.98), 0.7, 0.05, 1024, 0.8)
# learning rate and its decay with Adam on the driver (design, section 5)
_ADAM = (0.03, 0.7)


# A rating costs a tenth of a positive event with its negatives, so blocks of ratings are larger. Rankers learn so many
# positive events in one block: it is sequential SGD, and takes seconds an epoch.
_BLOCK_RATINGS, _BLOCK_POSITIVES, _ONE_BLOCK = 1_000_000, 250_000, 500_000
_CELL_USERS = 8


def block_count(config: TrainConfig, size: DataSize) -> int:
    """Logical blocks: one for small data, then about one per 250,000 positive events.

    With ``squared`` and ``logistic`` all events train, about one block per 1,000,000 of them.
    """
    if config.blocks != "auto":
        return config.blocks
    if config.loss in POINTWISE:
        return max(1, round(size.events / _BLOCK_RATINGS))
    return 1 if size.positives <= _ONE_BLOCK else round(size.positives / _BLOCK_POSITIVES)


def round_count(config: TrainConfig, size: DataSize, blocks: int) -> int:
    """Rounds an epoch: 1 for one block (sequential SGD), else about 9 positives per item row and round.

    Single events need 10: a user's rows are learnt in one block alone.
    """
    if config.rounds != "auto":
        return config.rounds
    if config.loss != "softmax":
        return 10 if blocks > 1 or config.local_steps == "off" else 1
    if blocks == 1:
        return 1
    return min(100, max(10, math.ceil(size.positives / (9 * max(1, size.items)))))


def shares_users(config: TrainConfig, size: DataSize, blocks: int, rounds: int) -> bool:
    """Whether every round takes some events of all users instead of all events of some.

    So it is where a block's share of a round would have fewer than 8 users: their events alone make poor minibatches.
    """
    few = size.users < _CELL_USERS * blocks * rounds
    return config.loss == "softmax" and config.local_steps == "on" and rounds > 1 and few


def candidates(config: TrainConfig, size: DataSize) -> list[Recipe[Settings]]:
    """Settings to try on the validation part, the rule's own choice first.

    How many are tried follows from the predicted cost and ``train.tune_seconds``, not from the clock, so that the
    same data and configuration always try the same ones.
    """
    by_size = [_SMALL, _MIDDLE] if size.positives < 200_000 else [_LARGE, _MIDDLE]
    rate, slower = _ADAM if config.optimizer == "adam" else (0.1, None)
    recipes: list[Recipe[Settings]] = []
    for decays, target_decay, l2, batch_size, rate_decay in by_size:
        settings = Settings(
            decays=tuple(config.decays) if config.decays != "auto" else decays,
            learning_rate=config.learning_rate if config.learning_rate != "auto" else rate,
            l2=config.l2 if config.l2 != "auto" else l2,
            l2_bias=config.l2_bias if config.l2_bias != "auto" else 0.0,
            batch_size=config.batch_size if config.batch_size != "auto" else batch_size,
            negatives=config.negatives if config.negatives != "auto" else _negatives(size),
            target_decay=config.target_decay if config.target_decay != "auto" else target_decay,
        )
        decay = config.learning_rate_decay if config.learning_rate_decay != "auto" else slower or rate_decay
        recipe = Recipe(settings, decay, most_epochs(config))
        if recipe not in recipes:
            recipes.append(recipe)
    affordable = max(1, int(config.tune_seconds / predicted_seconds(recipes[0], config.k * config.ensemble, size)))
    return recipes[:affordable]


def predicted_seconds(recipe: Recipe[Settings], k: int, size: DataSize) -> float:
    """Seconds on one core that a fit with a dozen epochs takes, from the number of products alone."""
    return 12 * size.positives * recipe.settings.negatives * k * _SECONDS_PER_PRODUCT


def recipes_to_try(config: TrainConfig, size: DataSize) -> list[AnyRecipe]:
    """The recipes of ``train.loss`` that validation compares."""
    if config.loss == "softmax":
        return list(candidates(config, size))
    return [event_recipe(config)]


# (learning rate, L2 of factors, of the bag and of linear weights): found on MovieLens 1M and the bundled ratings
_RATES = {"squared": (0.02, 0.07, 0.06, 0.02), "logistic": (0.05, 0.03, 0.03, 0.005), "bpr": (0.05, 0.005, 0.005, 0.02)}
# of the driver's steps
_GRADIENT_RATE = {"adagrad": 0.1, "adam": 0.003}


def event_recipe(config: TrainConfig) -> Recipe[EventRates]:
    """Settings of a machine over single events; none of them follows from the size of the data."""

    def chosen(value: Any, auto: Any) -> Any:
        return auto if value == "auto" else value

    rate, l2, l2_bag, l2_bias = _RATES[config.loss]
    rate = rate if config.local_steps == "on" else _GRADIENT_RATE[config.optimizer]
    epochs = most_epochs(config)
    rates = EventRates(
        loss=config.loss,
        learning_rate=chosen(config.learning_rate, rate),
        l2=chosen(config.l2, l2),
        l2_bag=chosen(config.l2_bag, l2_bag),
        l2_bias=chosen(config.l2_bias, l2_bias),
        average_from=chosen(config.average_from, max(1, epochs // 3)),
        negatives=chosen(config.negatives, 1),
        user=uses_user(config),
        bag=uses_bag(config),
    )
    return Recipe(rates, chosen(config.learning_rate_decay, 0.95), epochs)


def most_epochs(config: TrainConfig) -> int:
    """The most epochs of a fit: 20, for single events 30."""
    if config.epochs != "auto":
        return config.epochs
    return 20 if config.loss == "softmax" else 30


def uses_user(config: TrainConfig) -> bool:
    """Whether the user is a feature."""
    return config.loss in POINTWISE if config.user == "auto" else config.user


def uses_bag(config: TrainConfig) -> bool:
    """Whether the bag of the user's items is a field."""
    return config.loss != "softmax" if config.bag == "auto" else config.bag


def validation_metric(config: TrainConfig) -> str:
    """What chooses settings and epochs: NDCG@10 for rankers, RMSE for ratings, log loss for probabilities."""
    if config.validation_metric != "auto":
        return config.validation_metric
    return {"squared": "rmse", "logistic": "log_loss"}.get(config.loss, "ndcg_at_10")


def is_better(metric: str, one: float, other: float) -> bool:
    """Whether the first value of a metric is strictly better."""
    return one < other if metric in _LESS_IS_BETTER else one > other


def _negatives(size: DataSize) -> int:
    return 512 if size.positives < 5_000_000 else 256
