"""The rows that a block touches of one array of parameters: their gradients, and their values before the first step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.parameters import Doubles, Floats
from fm_spark.core.prefetch import AHEAD, prefetch_item, prefetch_row

Rows = npt.NDArray[np.int32]


@njit(inline="always")
def place_of(place, rows, n, row):  # type: ignore[no-untyped-def]
    """Where the row's gradient is, the new number of rows that have one, and whether it is the row's first."""
    at = place[row] - 1
    if at >= 0:
        return at, n, False
    rows[n] = row
    place[row] = n + 1
    return n, n + 1, True


@njit(cache=True, nogil=True, fastmath=True)
def _step(  # type: ignore[no-untyped-def]
    values, state, grad, place, rows, n, old, old_state, old_place, old_rows, n_old, rate, l2
):
    """Row-wise AdaGrad with L2 per touch on ``rows[:n]``; forgets the gradients and remembers values first changed.

    Returns the new number of remembered rows.
    """
    k = values.shape[1]
    for j in range(n):
        if j + AHEAD < n:
            ahead = rows[j + AHEAD]
            prefetch_row(values, ahead)
            prefetch_item(state, ahead)
            prefetch_item(old_place, ahead)
        row = rows[j]
        place[row] = 0
        at, n_old, first = place_of(old_place, old_rows, n_old, row)
        if first:
            old_state[at] = state[row]
            for f in range(k):
                old[at, f] = values[row, f]
        square = np.float32(0.0)
        for f in range(k):
            g = grad[j, f] + l2 * values[row, f]
            square += g * g
        total = state[row] + square / k
        state[row] = total
        step = np.float32(rate / np.sqrt(total))
        for f in range(k):
            values[row, f] -= step * (grad[j, f] + l2 * values[row, f])
    return n_old


@njit(cache=True, nogil=True)
def _take_back(values, state, old, old_state, old_place, rows, moved, added):  # type: ignore[no-untyped-def]
    """Puts the remembered values back; ``moved`` and ``added`` get what had changed, in the order of ``rows``."""
    for j in range(len(rows)):
        if j + AHEAD < len(rows):
            ahead = rows[j + AHEAD]
            prefetch_row(values, ahead)
            prefetch_item(state, ahead)
            prefetch_row(old, old_place[ahead] - 1)
        row = rows[j]
        at = old_place[row] - 1
        old_place[row] = 0
        for f in range(values.shape[1]):
            moved[j, f] = values[row, f] - old[at, f]
            values[row, f] = old[at, f]
        added[j] = state[row] - old_state[at]
        state[row] = old_state[at]


class Touched:
    """Scratch arrays for one array of parameters, float32 [n_rows, width], and its AdaGrad state.

    Gradients and old values lie one after the other in the order of the first touch: they stay in the processor's
    cache, and of ``grad`` and ``old`` no more memory is ever filled than a block touches rows.

    Attributes:
        grad: float32 [n_rows, width]; row ``place[r] - 1`` is the gradient of row r.
        place: int32 [n_rows], 0 for a row without a gradient.
        rows: int32 [n_rows], the rows with a gradient, in the order of ``grad``; the caller knows how many.
    """

    def __init__(self, n_rows: int, width: int) -> None:
        self.grad = np.empty((n_rows, width), np.float32)
        self.place = np.zeros(n_rows, np.int32)
        self.rows = np.empty(n_rows, np.int32)
        self._old = np.empty((n_rows, width), np.float32)
        self._old_state = np.empty(n_rows, np.float64)
        self._old_place = np.zeros(n_rows, np.int32)
        self._old_rows = np.empty(n_rows, np.int32)
        self._n_old = 0

    def nbytes(self) -> int:
        """Bytes that follow from the number of rows, not from how many are touched."""
        return sum(a.nbytes for a in (self.place, self.rows, self._old_state, self._old_place, self._old_rows))

    def clear(self) -> None:
        """Forgets gradients and old values."""
        self.place[:] = 0
        self._old_place[:] = 0
        self._n_old = 0

    def step(self, values: Floats, state: Doubles, n: int, rate: float, l2: float) -> None:
        """One AdaGrad step in place with the gradients of ``rows[:n]``, which are forgotten."""
        self._n_old = _step(
            values, state, self.grad, self.place, self.rows, n,
            self._old, self._old_state, self._old_place, self._old_rows, self._n_old, rate, np.float32(l2),
        )  # fmt: skip

    def take_back(self, values: Floats, state: Doubles) -> tuple[Rows, Floats, Doubles]:
        """Undoes all steps; returns the rows (ascending), their displacement and what was added to their state."""
        rows = np.sort(self._old_rows[: self._n_old])
        moved, added = np.empty((len(rows), values.shape[1]), np.float32), np.empty(len(rows), np.float64)
        _take_back(values, state, self._old, self._old_state, self._old_place, rows, moved, added)
        self._n_old = 0
        return rows, moved, added
