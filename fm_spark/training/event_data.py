"""What training on single events knows besides the packed blocks: the users, the fields, sums over the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from fm_spark.config_sections import TrainConfig
from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import Ids
from fm_spark.training.blocks import PUBLISH, STAGES, Block, Slices
from fm_spark.training.resolve import uses_bag, uses_user

# labels and weights are summed as integers, / 2^20
_UNIT = 2.0**20


class Totals(NamedTuple):
    """Sums over the events of a stage, / 2^20 where they are sums; least and greatest value (infinite for none)."""

    weight: int
    value: int
    liked: int
    least: float
    greatest: float

    def merge(self, other: Totals) -> Totals:
        """Of the events of both."""
        return Totals(
            self.weight + other.weight,
            self.value + other.value,
            self.liked + other.liked,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )

    @property
    def mean_value(self) -> float:
        """Weighted mean rating; 0 without events."""
        return self.value / self.weight if self.weight else 0.0

    @property
    def share_liked(self) -> float:
        """Weighted share of liked events; 0 without events."""
        return self.liked / self.weight if self.weight else 0.0


class Users(NamedTuple):
    """The users in ascending order of their ids; a user's row of the parameters is his place.

    Attributes:
        ids: int64 or object [n_users], as in the input.
        known, all: int64 [n_users], events in the training part and in all.
    """

    ids: Ids
    known: npt.NDArray[np.int64]
    all: npt.NDArray[np.int64]


@dataclass(frozen=True)
class EventData:
    """What every fit of a run shares.

    Attributes:
        fields: rows of each field.
        side: float32 CSR [n_items, n_side], side features of the items; None without any.
        users: None when the user is no feature.
        seen: stage -> int64 [n_items], events of each item that the stage may see.
    """

    fields: Fields
    side: sparse.csr_matrix | None
    users: Users | None
    seen: dict[str, npt.NDArray[np.int64]]
    totals: dict[str, Totals]

    @property
    def ids(self) -> Ids:
        """Ids of the users that have rows."""
        return self.users.ids if self.users is not None else np.empty(0, np.int64)

    def events_of_users(self, stage: str) -> npt.NDArray[np.int64]:
        """Events of each user that has a row, int64 [n_users]; in validation those of the training part."""
        if self.users is None:
            return np.empty(0, np.int64)
        return self.users.all if stage == PUBLISH else self.users.known


def find_users(events: DataFrame) -> Users:
    """Collects the users, who have rows on the driver anyway, and counts their events."""
    known = F.count_if(F.col("split") == "train")
    rows = events.groupBy("user_id").agg(known.alias("known"), F.count("*").alias("all")).toPandas()
    rows = rows.sort_values("user_id", ignore_index=True)
    return Users(rows["user_id"].to_numpy(), rows["known"].to_numpy(np.int64), rows["all"].to_numpy(np.int64))


def event_data(
    config: TrainConfig,
    slices: Slices,
    users: Users | None,
    side: sparse.csr_matrix | None,
    seen: dict[str, npt.NDArray[np.int64]],
    n_context: int = 0,
) -> EventData:
    """Puts together what the fits share; counts the events of the blocks."""
    n_items = len(seen[PUBLISH])
    fields = Fields(
        len(users.ids) if users is not None else 0,
        n_items,
        side.shape[1] if side is not None else 0,
        n_items if uses_bag(config) else 0,
        n_context,
    )
    return EventData(fields, side, users, seen, totals_of(slices))


def needs_rows(config: TrainConfig) -> bool:
    """Whether users are features of the machine."""
    return config.loss != "softmax" and uses_user(config)


def totals_of(slices: Slices) -> dict[str, Totals]:
    """Sums over the events that each stage may see."""
    found = slices.reduce(_totals, _merge)
    nothing = Totals(0, 0, 0, np.inf, -np.inf)
    return dict(zip(STAGES, found or [nothing] * len(STAGES), strict=True))


def _totals(block: Block) -> list[Totals]:
    totals = []
    for stage in STAGES:
        seen = block.view(stage)
        weight = seen.weight.astype(np.float64)
        value = np.zeros(len(weight)) if seen.value is None else seen.value.astype(np.float64)
        weighted, liked = _exact(weight * value), _exact(weight * seen.liked)
        least, greatest = float(value.min(initial=np.inf)), float(value.max(initial=-np.inf))
        totals.append(Totals(_exact(weight), weighted, liked, least, greatest))
    return totals


def _exact(values: npt.NDArray[np.float64]) -> int:
    return int(np.rint(values * _UNIT).astype(np.int64).sum())


def _merge(a: list[Totals] | None, b: list[Totals] | None) -> list[Totals] | None:
    if a is None or b is None:
        return b if a is None else a
    return [one.merge(other) for one, other in zip(a, b, strict=True)]
