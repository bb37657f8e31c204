"""What ``auto`` means where it follows from the size of the data or from the loss alone (docs/configuration.md).

Settings that validation chooses from are in :mod:`fm_spark.training.recipes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fm_spark.config_sections import TrainConfig
from fm_spark.core.constant_steps import POINTWISE

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


def most_epochs(config: TrainConfig) -> int:
    """The most epochs of a fit: 20, for single events 30."""
    if config.epochs != "auto":
        return config.epochs
    return 20 if config.loss == "softmax" else 30


def init_std(config: TrainConfig) -> float:
    """Standard deviation of the factors that training starts from."""
    if config.init_std != "auto":
        return config.init_std
    return 0.02 if config.loss in POINTWISE and config.local_steps == "on" else 0.05


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
