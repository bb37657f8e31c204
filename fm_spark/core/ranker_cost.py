"""What the machine over histories (softmax) costs, for :mod:`fm_spark.core.planner`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fm_spark.core.combine import on_grid
from fm_spark.core.gradient import Workspace
from fm_spark.core.history import windows
from fm_spark.core.local_steps import Move
from fm_spark.core.parameters import Doubles, init_parameters
from fm_spark.core.planner import Cost, Rows, Workload, gradient_row_bytes, touched, touched_or_drawn

# Seconds of one core (python -m benchmarks.kernel measures them again).
SECONDS_PER_PAIR, SECONDS_PER_PRODUCT = 1.0e-9, 6.8e-11
SECONDS_PER_SCAN, SECONDS_PER_SCAN_FACTOR = 7e-8, 2.6e-9
# Packed: item 4, liked 1, weight 4, part 1, validation 1; per user id 8 and pointer 8.
_BYTES_PER_EVENT, _BYTES_PER_USER = 11, 16


@dataclass(frozen=True, kw_only=True)
class RankerWorkload(Workload):
    """The settings of :class:`~fm_spark.core.gradient.Settings` that cost something."""

    decays: tuple[float, ...]
    negatives: int
    negatives_power: float
    batch_size: int
    chunk_size: int

    def cost(self, counts: Doubles) -> Cost:
        """See :meth:`Workload.cost`."""
        tables = 2 * len(self.decays) + 1
        fields = tables + (self.side_features > 0) + (self.context_features > 0)
        features = tables * self.items + self.side_features + self.context_features + fields
        # every array has a row per item or a multiple of it, so one item's machine scales up
        one = init_parameters(len(self.decays), np.zeros(1, np.int64), self.k, 0.0, 0)
        broadcast = one.nbytes() * self.items + (4 * self.k + 8) * self.context_features
        # sums of gradients have 64 bits a number in memory, and 32 on the way
        summed = (4 if self.local_steps else 8) * self.k + 24
        return Cost(
            features=features,
            parameters=features * self.k + self.items + self.side_features,
            broadcast=broadcast,
            kept=broadcast,
            block=touched_rows(self, counts, self.blocks),
            task=touched_rows(self, counts, self.tasks),
            whole=touched_rows(self, counts, 1),
            row_bytes=row_bytes(self.k) if self.local_steps else gradient_row_bytes(self.k),
            summed=summed,
            scratch=(Workspace((tables, self.k), 1).nbytes() + tables * summed) * self.items,
            cached=_BYTES_PER_EVENT * self.events + _BYTES_PER_USER * self.users,
            compute=_compute(self),
        )


def _compute(w: RankerWorkload) -> float:
    pairs = w.positives * w.negatives
    mean_seen = 2 * w.events / max(1, w.users)
    scanned = sum(scanned_events(d, w.events, w.positives, mean_seen, w.chunk_size) for d in w.decays)
    compute = pairs * (SECONDS_PER_PAIR + w.k * SECONDS_PER_PRODUCT)
    return compute + scanned * (SECONDS_PER_SCAN + w.k * SECONDS_PER_SCAN_FACTOR)


def scanned_events(decay: float, events: float, positives: float, mean_seen: float, chunk_size: int) -> float:
    """Events that the recursion of one decay visits in an epoch.

    A chunk of positives starts its recursion anew up to a window before its first event. With histories of
    exponentially distributed lengths an event has on average half of ``mean_seen`` events before it.

    Args:
        mean_seen: mean over events of the length of the user's history that the event belongs to.
    """
    if not positives:
        return 0.0
    chunk = chunk_size * events / positives
    window = float(windows(np.array([decay]))[0])
    again = min(window, mean_seen / 2) * (1 if mean_seen > chunk else mean_seen / chunk)
    return events * (1 + again / chunk)


def seen_share(decay: float, w: RankerWorkload) -> float:
    """Share of the events that a later positive of the user sees in the bag of that decay."""
    length = max(1, round(w.events / max(1, w.users)))
    later = np.minimum(np.arange(length), windows(np.array([decay]))[0])
    return float(np.mean(1.0 - (1.0 - w.positives / max(1, w.events)) ** later))


def touched_rows(w: RankerWorkload, counts: Doubles, parts: int) -> Rows:
    """Expected rows that one of ``parts`` equal parts of a round touches.

    Args:
        counts: float64 [items], events of each item; liked ones are taken to be the same share of all.
    """
    share = 1.0 / (w.rounds * parts)
    liked = w.positives / max(1, w.events)
    rows = 0.0
    for decay in w.decays:
        seen = seen_share(decay, w)
        rows += sum(float(touched(counts * seen * kind, share).sum()) for kind in (liked, 1.0 - liked))
    minibatches = w.positives // (w.blocks * w.rounds * w.batch_size) + 1
    draws = w.blocks / parts * minibatches * w.negatives
    items = touched_or_drawn(counts * liked, share, draws, w.negatives_power)
    return Rows(rows + items + w.context_features, items)


def row_bytes(k: int) -> tuple[float, float]:
    """Bytes of a factor row and of a bias row in what tasks return, taken from a sum of a few rows that moved.

    Rows that moved far may be sent with more bytes; these are few.
    """
    n = 8  # the least that has whole bytes when a flag is one bit
    start = init_parameters(0, np.zeros(n, np.int64), k, 0.0, 0)
    rows, none = np.arange(n, dtype=np.int32), np.empty(0, np.int32)
    nothing = Move(
        none, np.zeros((0, k), np.float32), np.empty(0), none, np.empty(0, np.float32), np.empty(0), 0.0, 0.0
    )
    wide = nothing._replace(rows=rows, factors=np.zeros((n, k), np.float32), state=np.ones(n))
    narrow = nothing._replace(items=rows, bias=np.zeros(n, np.float32), bias_state=np.ones(n))
    return on_grid(wide, start).nbytes() / n, on_grid(narrow, start).nbytes() / n
