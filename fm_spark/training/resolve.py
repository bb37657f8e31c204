"""What ``auto`` means: settings that follow from the size of the data, and candidates for validation to choose from.

The rules and the measurements behind them are in docs/configuration.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fm_spark.config import TrainConfig
from fm_spark.core.gradient import Settings

# One core's arithmetic: 4 flops a parameter and sampled item forwards and 8 backwards, at about 20 Gflop/s.
_SECONDS_PER_PRODUCT = 6e-10


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


@dataclass(frozen=True)
class Recipe:
    """Settings with everything resolved, but for the number of epochs that validation chooses."""

    settings: Settings
    learning_rate_decay: float
    epochs: int

    def at_epoch(self, epoch: int) -> Settings:
        """Settings with the rate of an epoch (from 0)."""
        rate = self.settings.learning_rate * self.learning_rate_decay**epoch
        return self.settings._replace(learning_rate=rate)

    def slower(self, halvings: int) -> Recipe:
        """The same at the learning rate halved so many times."""
        rate = self.settings.learning_rate * 0.5**halvings
        return replace(self, settings=self.settings._replace(learning_rate=rate))

    def describe(self) -> dict[str, str]:
        """Setting -> value as text, for ``fm_model.hyperparameters``."""
        values = {**self.settings._asdict(), "learning_rate_decay": self.learning_rate_decay}
        return {
            name: ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
            for name, value in values.items()
        }


# (decays, target_decay, l2, batch size, decay of the rate): the first was found on about 100,000 ratings, the last
# on 1,000,000 (design, section 4); more data carry finer time scales, farther targets and less regularisation.
_SMALL = ((0.8, 0.98), 0.3, 0.2, 256, 0.85)
_MIDDLE = ((0.3, 0.8, 0.98), 0.5, 0.1, 512, 0.85)
_LARGE = ((0.3, 0.8, 0.98), 0.7, 0.05, 1024, 0.8)


def block_count(config: TrainConfig, size: DataSize) -> int:
    """Logical blocks: about one per 250,000 positive events."""
    return config.blocks if config.blocks != "auto" else max(1, round(size.positives / 250_000))


def round_count(config: TrainConfig, size: DataSize, blocks: int) -> int:
    """Rounds an epoch: 1 for one block (sequential SGD), else about 9 positives per item row and round."""
    if config.rounds != "auto":
        return config.rounds
    if blocks == 1:
        return 1
    return min(100, max(10, math.ceil(size.positives / (9 * max(1, size.items)))))


def candidates(config: TrainConfig, size: DataSize) -> list[Recipe]:
    """Settings to try on the validation part, the rule's own choice first.

    How many are tried follows from the predicted cost and ``train.tune_seconds``, not from the clock, so that the
    same data and configuration always try the same ones.
    """
    by_size = [_SMALL, _MIDDLE] if size.positives < 200_000 else [_LARGE, _MIDDLE]
    recipes: list[Recipe] = []
    for decays, target_decay, l2, batch_size, rate_decay in by_size:
        settings = Settings(
            decays=tuple(config.decays) if config.decays != "auto" else decays,
            learning_rate=config.learning_rate if config.learning_rate != "auto" else 0.1,
            l2=config.l2 if config.l2 != "auto" else l2,
            l2_bias=config.l2_bias,
            batch_size=config.batch_size if config.batch_size != "auto" else batch_size,
            negatives=config.negatives if config.negatives != "auto" else _negatives(size),
            target_decay=config.target_decay if config.target_decay != "auto" else target_decay,
        )
        decay = config.learning_rate_decay if config.learning_rate_decay != "auto" else rate_decay
        recipe = Recipe(settings, decay, config.epochs)
        if recipe not in recipes:
            recipes.append(recipe)
    affordable = max(1, int(config.tune_seconds / predicted_seconds(recipes[0], config.k, size)))
    return recipes[:affordable]


def predicted_seconds(recipe: Recipe, k: int, size: DataSize) -> float:
    """Seconds on one core that a fit with a dozen epochs takes, from the number of products alone."""
    return 12 * size.positives * recipe.settings.negatives * k * _SECONDS_PER_PRODUCT


def _negatives(size: DataSize) -> int:
    return 512 if size.positives < 5_000_000 else 256
