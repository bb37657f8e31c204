"""How good predictions of single events are: errors of ratings, and loss, order and calibration of probabilities.

Every event counts once, whatever its weight and whoever its user is. Sums are integers on a fixed grid, so that any
grouping of the events gives the same bits. Without events every metric is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating] | npt.NDArray[np.integer]
Ints = npt.NDArray[np.int64]

# 1e-6: errors are of the size of ratings, and int64 holds the sum of 10^9 squared errors of up to 9000
_UNIT = 2.0**20
_AUC_BINS = 1 << 16
_CALIBRATION_BINS = 10
# a probability of exactly 0 or 1 that is wrong must not cost infinity
_LEAST_PROBABILITY = 1e-7


class RatingSums(NamedTuple):
    """Sums over events, / 2^20, and the number of events."""

    squared: int
    absolute: int
    events: int

    def merge(self, other: RatingSums) -> RatingSums:
        """The sums over the events of both."""
        return RatingSums(*(a + b for a, b in zip(self, other, strict=True)))

    def means(self) -> dict[str, float]:
        """``rmse``: root of the mean squared error; ``mae``: mean absolute error; both over events."""
        if not self.events:
            return {"rmse": np.nan, "mae": np.nan}
        return {
            "rmse": float(np.sqrt(self.squared / _UNIT / self.events)),
            "mae": self.absolute / _UNIT / self.events,
        }


def rating_sums(prediction: Numbers, value: Numbers) -> RatingSums:
    """Errors of predicted ratings, [n_events] each."""
    error = prediction.astype(np.float64) - value.astype(np.float64)
    return RatingSums(_exact(np.square(error)), _exact(np.abs(error)), len(error))


class LabelSums(NamedTuple):
    """Sums over events with a label of 0 or 1.

    Attributes:
        loss: summed log loss, / 2^20.
        order: int64 [2, 65536], events by label and predicted probability, in bins of equal width.
        calibration: int64 [3, 10], by bins of equal width: events, labels of 1, and probability (/ 2^20).
    """

    loss: int
    order: Ints
    calibration: Ints

    def merge(self, other: LabelSums) -> LabelSums:
        """The sums over the events of both."""
        return LabelSums(self.loss + other.loss, self.order + other.order, self.calibration + other.calibration)

    @property
    def events(self) -> int:
        """Number of events."""
        return int(self.calibration[0].sum())

    def means(self) -> dict[str, float]:
        """``log_loss``, ``auc`` and ``calibration_error``.

        log_loss: mean over events of -log of the probability given to the label, in nats; probabilities are cut to
        [1e-7, 1 - 1e-7].
        auc: probability that an event with label 1 has the larger prediction of a pair with labels 1 and 0, ties
        count half; predictions less than 1.5e-5 apart may count as tied. NaN when all labels are the same.
        calibration_error: expected calibration error, sum over ten bins of equal width of (share of the events) *
        |share of labels 1 - mean probability|.
        """
        events = self.events
        if not events:
            return {"log_loss": np.nan, "auc": np.nan, "calibration_error": np.nan}
        _, ones, probability = self.calibration.astype(np.float64)
        error = np.abs(ones - probability / _UNIT).sum() / events
        return {"log_loss": self.loss / _UNIT / events, "auc": _auc(self.order), "calibration_error": float(error)}


def no_labels() -> LabelSums:
    """The sums over no events."""
    return LabelSums(0, np.zeros((2, _AUC_BINS), np.int64), np.zeros((3, _CALIBRATION_BINS), np.int64))


def label_sums(probability: Numbers, label: Numbers) -> LabelSums:
    """Sums over events with predicted probabilities of label 1, [n_events] each."""
    p = np.clip(probability.astype(np.float64), _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    one = label > 0
    order = [np.bincount((p[chosen] * _AUC_BINS).astype(np.int64), minlength=_AUC_BINS) for chosen in (~one, one)]
    place = (p * _CALIBRATION_BINS).astype(np.int64)
    calibration = [
        np.bincount(place, minlength=_CALIBRATION_BINS),
        np.bincount(place[one], minlength=_CALIBRATION_BINS),
        np.bincount(place, np.rint(p * _UNIT), minlength=_CALIBRATION_BINS).astype(np.int64),
    ]
    return LabelSums(_exact(-np.log(np.where(one, p, 1.0 - p))), np.stack(order), np.stack(calibration))


def _auc(order: Ints) -> float:
    zeros, ones = order.astype(np.float64)
    pairs = zeros.sum() * ones.sum()
    if not pairs:
        return np.nan
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + 0.5 * zeros)).sum() / pairs)


def _exact(values: Numbers) -> int:
    return int(np.rint(values * _UNIT).astype(np.int64).sum())
