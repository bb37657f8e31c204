"""What a pass over a block of events needs: scratch arrays, the order of the events, and the rows they touch."""

from __future__ import annotations

import numpy as np
from numba import njit

from fm_spark.core.fm_events import Events, Features, Rows
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.plan import Positives, visit_order
from fm_spark.core.pointwise_steps import Visits


class FmWorkspace:
    """Scratch arrays, as long as the parameters, made once and reused by a task's blocks and rounds.

    Attributes:
        stats: float32 [n_rows + 1, 2], zero between blocks; see :mod:`fm_spark.core.pointwise_steps`.
        marks: uint8 [n_rows], zero between calls of :func:`touched_rows`.
        rows: int32 [n_rows + 1], a list that is one longer than it can become.
    """

    def __init__(self, n_rows: int) -> None:
        self.stats = np.zeros((n_rows + 1, 2), np.float32)
        self.marks = np.zeros(n_rows, np.uint8)
        self.rows = np.empty(n_rows + 1, np.int32)

    def clear(self) -> None:
        """Forgets what a block left that stopped half-way."""
        self.stats[:] = 0.0
        self.marks[:] = 0


@njit(cache=True, nogil=True)
def _shuffle(order, random):  # type: ignore[no-untyped-def]
    """Fisher and Yates; multiply and shift maps 32 random bits to 0..i."""
    for i in range(len(order)):
        order[i] = i
    for i in range(len(order) - 1, 0, -1):
        j = np.int64((np.uint64(random[i]) * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[j] = order[j], order[i]


def mixed_order(n: int, rng: np.random.Generator) -> Rows:
    """A random order of n events, int32 [n]; a quarter of the time of ``Generator.permutation``."""
    order = np.empty(n, np.int32)
    _shuffle(order, rng.integers(0, 2**32, n, dtype=np.uint32))
    return order


def visit_users(events: Events, size: int, rng: np.random.Generator) -> Visits:
    """Runs of up to ``size`` events of one user, in an order that mixes users."""
    if size == 1:
        first = mixed_order(len(events.item), rng).astype(np.int64)
        return Visits(first, first + 1, np.searchsorted(events.ptr, first, side="right") - 1)
    all_events = np.arange(len(events.item), dtype=np.int64)
    chunks = visit_order(Positives(all_events, events.ptr, events.ptr[:-1]), size, rng)
    return Visits(chunks.first, chunks.last, np.searchsorted(events.ptr, chunks.first, side="right") - 1)


@njit(inline="always")
def _mark(marks, out, n, row):  # type: ignore[no-untyped-def]
    """Appends the row if it is new; without a branch, which would be guessed wrong half of the time."""
    out[n] = row
    n += 1 - marks[row]
    marks[row] = 1
    return n


@njit(cache=True, nogil=True)
def _mark_events(marks, out, user, item, side, item_offset):  # type: ignore[no-untyped-def]
    """Rows of users, items and the items' static features; returns how many."""
    n = 0
    for u in user:
        if u >= 0:
            n = _mark(marks, out, n, u)
    for i in item:
        n = _mark(marks, out, n, i)
    if len(side.row):
        for j in range(n):
            i = out[j] - item_offset
            if 0 <= i < len(side.ptr) - 1:
                for p in range(side.ptr[i], side.ptr[i + 1]):
                    n = _mark(marks, out, n, side.row[p])
    return n


@njit(cache=True, nogil=True)
def _mark_rows(marks, out, n, rows):  # type: ignore[no-untyped-def]
    for row in rows:
        n = _mark(marks, out, n, row)
    return n


def touched_rows(work: FmWorkspace, events: Events, side: Features, item_offset: int, negative: Rows) -> Rows:
    """Rows that a pass over the events reads or moves, int32 ascending, a copy.

    Args:
        negative: int32, rows of items that were drawn as negatives.
    """
    n = _mark_events(work.marks, work.rows, events.user, events.item, side, item_offset)
    for rows in (events.context.row, events.bag.row):
        n = _mark_rows(work.marks, work.rows, n, rows)
    if len(negative):
        drawn = np.unique(negative) - item_offset
        for i in drawn:
            n = _mark_rows(work.marks, work.rows, n, side.row[side.ptr[i] : side.ptr[i + 1]])
        n = _mark_rows(work.marks, work.rows, n, (drawn + item_offset).astype(np.int32))
    rows = np.sort(work.rows[:n])
    work.marks[rows] = 0
    return rows


def save_rows(parameters: FmParameters, rows: Rows) -> FmParameters:
    """Copies of the rows and of w0: what has to be put back after a block has worked in place."""
    return FmParameters(parameters.factors[rows], parameters.linear[np.append(rows, -1)])


def take_back(parameters: FmParameters, rows: Rows, old: FmParameters) -> FmParameters:
    """Puts ``old`` back; returns how far the rows and w0 had moved."""
    at = np.append(rows, -1)
    moved = FmParameters(parameters.factors[rows] - old.factors, parameters.linear[at] - old.linear)
    parameters.factors[rows], parameters.linear[at] = old
    return moved
