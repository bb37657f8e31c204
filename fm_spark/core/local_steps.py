"""Local steps (design 5B): a block makes minibatch AdaGrad steps of its own and reports how far it moved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from fm_spark.core.gradient import Rows, Sampler, Settings, Workspace, add_gradient, check_loss, minibatches
from fm_spark.core.parameters import Doubles, Floats, Parameters
from fm_spark.core.plan import draw_targets, positives, visit_order
from fm_spark.core.sequences import Sequences


class Move(NamedTuple):
    """What a block learnt in a round, for the rows it touched only.

    Attributes:
        rows: int32 [r], ascending; factors: float32 [r, k] displacement; state: float64 [r] added AdaGrad state.
        items: int32 [b], ascending; bias: float32 [b]; bias_state: float64 [b].
        loss: summed loss; events: summed weight.
    """

    rows: Rows
    factors: Floats
    state: Doubles
    items: Rows
    bias: Floats
    bias_state: Doubles
    loss: float
    events: float


@njit(cache=True, nogil=True, fastmath=True)
def _step(factors, state, grad, touched, rows, n, rate, l2):  # type: ignore[no-untyped-def]
    """Row-wise AdaGrad with L2 per touch on the touched rows; clears the marks."""
    k = factors.shape[1]
    for j in range(n):
        row = rows[j]
        touched[row] = 0
        square = np.float32(0.0)
        for f in range(k):
            g = grad[row, f] + l2 * factors[row, f]
            grad[row, f] = g
            square += g * g
        state[row] += square / k
        step = np.float32(rate / np.sqrt(state[row]))
        for f in range(k):
            factors[row, f] -= step * grad[row, f]


class _Undo:
    """Values of rows before their first change in the round, so that a block can work in place."""

    def __init__(self, n_rows: int) -> None:
        self._seen = np.zeros(n_rows, np.uint8)
        self._rows: list[Rows] = []
        self._old: list[tuple[Floats, Doubles]] = []

    def remember(self, rows: Rows, values: Floats, state: Doubles) -> None:
        new = rows[self._seen[rows] == 0]
        self._seen[new] = 1
        self._rows.append(new)
        self._old.append((values[new], state[new]))

    def take_back(self, values: Floats, state: Doubles) -> tuple[Rows, Floats, Doubles]:
        """Restores every row; returns rows (ascending), displacement and added state."""
        rows = np.concatenate([*self._rows, np.empty(0, np.int32)])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        old_values = np.concatenate([v for v, _ in self._old] or [values[:0]])[order]
        old_state = np.concatenate([s for _, s in self._old] or [state[:0]])[order]
        moved, added = values[rows] - old_values, state[rows] - old_state
        values[rows], state[rows] = old_values, old_state
        self._seen[rows] = 0
        self._rows, self._old = [], []
        return rows, moved, added


def run_block(
    parameters: Parameters,
    work: Workspace,
    sequences: Sequences,
    sampler: Sampler,
    settings: Settings,
    rng: np.random.Generator,
) -> Move:
    """Trains on one block for one round, starting from ``parameters``, which are the same again afterwards.

    Args:
        sequences: the block's users; every event is history, every liked one is a training event.
        rng: the block's own stream; the same stream and data give the same bits.

    Raises:
        FloatingPointError: the loss of a minibatch is not finite.
    """
    found = positives(sequences)
    order = visit_order(found, settings.chunk_size, rng)
    target = draw_targets(sequences, found, settings.target_decay, rng)
    loss = events = 0.0
    bias = parameters.bias.reshape(-1, 1)
    undo, undo_bias = _Undo(len(parameters.factors)), _Undo(parameters.n_items)
    for batch in minibatches(found, order, target, sampler, settings, rng):
        batch_loss, weight, n, m = add_gradient(parameters, work, sequences, batch, settings, sampler.correction)
        check_loss(batch_loss)
        loss, events = loss + batch_loss, events + weight
        undo.remember(work.rows[:n], parameters.factors, parameters.factors_state)
        undo_bias.remember(work.items[:m], bias, parameters.bias_state)
        rate = settings.learning_rate
        _step(
            parameters.factors,
            parameters.factors_state,
            work.grad,
            work.touched,
            work.rows,
            n,
            rate,
            np.float32(settings.l2),
        )
        _step(
            bias,
            parameters.bias_state,
            work.grad_bias,
            work.touched_items,
            work.items,
            m,
            rate,
            np.float32(settings.l2_bias),
        )
    rows, moved, state = undo.take_back(parameters.factors, parameters.factors_state)
    items, moved_bias, bias_state = undo_bias.take_back(bias, parameters.bias_state)
    return Move(rows, moved, state, items, moved_bias[:, 0], bias_state, loss, events)
