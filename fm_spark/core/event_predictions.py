"""What a trained machine says about events: ratings, probabilities or scores; and the mean of several snapshots."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fm_spark.core.constant_steps import ItemTable
from fm_spark.core.fm_events import Events, Floats
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.pairwise import predict_ranking
from fm_spark.core.pointwise import predict


def predict_events(
    parameters: FmParameters,
    events: Events,
    items: ItemTable,
    loss: str,
    limits: tuple[float, float] | None = None,
) -> Floats:
    """Predictions for every event, float32 [n_events]; labels are not read.

    Args:
        loss: ``squared`` gives ratings, ``logistic`` the probability of label 1, ``bpr`` a score that ranks the items
            of one user and context.
        limits: lowest and highest rating; ``squared`` predictions are clipped to them.
    """
    out = np.empty(len(events.item), np.float32)
    if loss == "bpr":
        predict_ranking(parameters, events, items.side, items.offset, out)
        return out
    predict(parameters, events, items.side, items.offset, out)
    if loss == "logistic":
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-out))).astype(np.float32)
    return out if limits is None else np.clip(out, *limits)


class SnapshotMean:
    """Mean of the parameters after each of several epochs: one machine, whatever the number of snapshots.

    Late snapshots lie in one basin, so the machine of the mean predicts as well as the mean of the machines.

    Attributes:
        sums: float64 sums of the factors and of the linear weights; None before the first snapshot.
        count: how many snapshots.

    Source:
        Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(
        self, sums: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None, count: int = 0
    ) -> None:
        self.sums, self.count = sums, count

    def add(self, parameters: FmParameters) -> None:
        """Adds a snapshot; the arrays are copied."""
        new = (parameters.factors.astype(np.float64), parameters.linear.astype(np.float64))
        self.sums = new if self.sums is None else (self.sums[0] + new[0], self.sums[1] + new[1])
        self.count += 1

    def take(self) -> FmParameters:
        """The mean.

        Raises:
            ValueError: nothing was added.
        """
        if self.sums is None:
            raise ValueError("no snapshot was added: average_from lies after the last epoch")
        return FmParameters(*((array / self.count).astype(np.float32) for array in self.sums))
