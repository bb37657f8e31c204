"""What the machines over single events (squared, logistic, bpr) cost, for :mod:`fm_spark.core.planner`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fm_spark.core.combine import MoveSum
from fm_spark.core.constant_steps import FmMove, fm_on_grid
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.parameters import Doubles
from fm_spark.core.planner import Cost, Rows, Workload, gradient_row_bytes, touched, touched_or_drawn

# Seconds of one core for an event, and for each factor (python -m benchmarks.event_kernel measures them again): with a
# user and an item alone, with further features, and for an event and one sampled item.
_PLAIN, _FEATURES, _PAIR = (3.5e-8, 1.1e-9), (5.5e-7, 2.5e-9), (7.6e-7, 3.0e-9)
# Packed: as for histories, and the rating 4; per user his row 4 as well.
_BYTES_PER_EVENT, _BYTES_PER_USER = 15, 20
# kept of a fit: the parameters, and the sums of their snapshots in float64
_KEPT = 3


@dataclass(frozen=True, kw_only=True)
class EventWorkload(Workload):
    """The settings of a machine over single events that cost something.

    Attributes:
        user, bag: whether the user and the bag of the user's items are fields.
        negatives, negatives_power: of ``bpr``.
    """

    loss: str
    user: bool
    bag: bool
    negatives: int
    negatives_power: float

    @property
    def n_rows(self) -> int:
        """Rows of all fields."""
        own = self.items + self.side_features + self.context_features
        return own + self.users * self.user + self.items * self.bag

    def cost(self, counts: Doubles) -> Cost:
        """See :meth:`Workload.cost`."""
        fields = 1 + self.user + self.bag + (self.side_features > 0) + (self.context_features > 0)
        broadcast = self.n_rows * (4 * self.k + 4) + 4
        summed = 8 * self.k + 24
        return Cost(
            features=self.n_rows + fields,
            parameters=self.n_rows * (self.k + 1) + 1,
            broadcast=broadcast,
            kept=_KEPT * broadcast,
            block=event_rows(self, counts, self.blocks),
            task=event_rows(self, counts, self.tasks),
            whole=event_rows(self, counts, 1),
            row_bytes=event_row_bytes(self.k) if self.local_steps else gradient_row_bytes(self.k),
            summed=summed,
            # curvature 8, mark 1, list 4; sums of factors and of linear weights
            scratch=self.n_rows * (13 + summed + 32),
            cached=_BYTES_PER_EVENT * self.events + _BYTES_PER_USER * self.users,
            compute=self._compute(),
        )

    def _compute(self) -> float:
        plain = self.user and not (self.bag or self.side_features or self.context_features)
        return epoch_seconds(self.loss, self.k, self.events, self.positives * self.negatives, plain)


def epoch_seconds(loss: str, k: int, events: int, pairs: int, plain: bool = False) -> float:
    """Seconds of one core for an epoch's steps, without what rows cost on their way.

    Args:
        events: what ``squared`` and ``logistic`` learn from; pairs: liked events times sampled items (``bpr``).
        plain: the user and the item are the only features.
    """
    a, b = _PAIR if loss == "bpr" else _PLAIN if plain else _FEATURES
    return (pairs if loss == "bpr" else events) * (a + b * k)


def event_rows(w: EventWorkload, counts: Doubles, parts: int) -> Rows:
    """Expected rows that one of ``parts`` equal parts of a round touches.

    Args:
        counts: float64 [items], events of each item; liked ones are taken to be the same share of all.
    """
    share = 1.0 / (w.rounds * parts)
    own = w.side_features + w.context_features + w.users * w.user * share
    known = float(touched(counts, share).sum())
    if w.loss == "bpr":
        liked = counts * (w.positives / max(1, w.events))
        items = touched_or_drawn(liked, share, w.positives * share * w.negatives, w.negatives_power)
    else:
        items = known
    return Rows(own + items + known * w.bag, own + items + 1)


def event_row_bytes(k: int) -> tuple[float, float]:
    """Bytes of a factor row and of a linear weight in what tasks return, taken from a sum of a few rows that moved.

    Rows that moved far may be sent with more bytes; these are few.
    """
    n = 8  # the least that has whole bytes when a flag is one bit; w0 stands besides
    moved = FmParameters(np.zeros((n, k), np.float32), np.full(n + 1, 0.01, np.float32))
    move = FmMove(np.arange(n, dtype=np.int32), n, moved, np.ones((n + 1, 2), np.float32), 0.0, 1.0)
    made = fm_on_grid(move)
    return _nbytes(made, "factors") / n, _nbytes(made, "bias") / (n + 1)


def _nbytes(total: MoveSum, part: str) -> int:
    return sum(array.nbytes for array in getattr(total, part).encoded())
