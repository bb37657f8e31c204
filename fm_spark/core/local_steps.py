"""Local steps (design 5B): a block makes minibatch AdaGrad steps on the parameters it was sent, and reports its move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core import history
from fm_spark.core.parameters import Doubles, Floats, Parameters
from fm_spark.core.plan import Chunks, Positives, draw_targets, positives, visit_order
from fm_spark.core.sequences import Sequences
from fm_spark.core.softmax import softmax_gradient

Rows = npt.NDArray[np.int32]


class Settings(NamedTuple):
    """What a block must know to train; everything resolved, nothing ``auto``."""

    decays: tuple[float, ...]
    learning_rate: float
    l2: float
    l2_bias: float
    batch_size: int
    negatives: int
    target_decay: float
    chunk_size: int = 16


class Sampler(NamedTuple):
    """Draws negatives: float64 [n_items] cumulative probabilities, float32 [n_items] logit corrections."""

    cumulative: Doubles
    correction: Floats


def make_sampler(count: npt.NDArray[np.int64], power: float) -> Sampler:
    """Negatives with probability proportional to (count + 1)^power; correction log(q n_items)."""
    q = (count + 1.0) ** power
    q /= q.sum()
    return Sampler(np.cumsum(q), np.log(q * len(q)).astype(np.float32))


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


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _scatter(  # type: ignore[no-untyped-def]
    index, offset, source, source_bias, grad, grad_bias, touched, touched_rows, n, touched_bias, bias_rows, m
):
    """Adds item-side gradients to the scratch rows; returns the new lengths of both touched lists."""
    k = grad.shape[1]
    for j in range(len(index)):
        item = index[j]
        row = offset + item
        if touched[row] == 0:
            touched[row] = 1
            touched_rows[n] = row
            n += 1
            for f in range(k):
                grad[row, f] = source[j, f]
        else:
            for f in range(k):
                grad[row, f] += source[j, f]
        if touched_bias[item] == 0:
            touched_bias[item] = 1
            bias_rows[m] = item
            m += 1
            grad_bias[item] = source_bias[j]
        else:
            grad_bias[item] += source_bias[j]
    return n, m


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
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

    def __init__(self, values: Floats, state: Doubles) -> None:
        self._values, self._state = values, state
        self._seen = np.zeros(len(values), np.uint8)
        self._rows: list[Rows] = []
        self._old: list[tuple[Floats, Doubles]] = []

    def remember(self, rows: Rows) -> None:
        new = rows[self._seen[rows] == 0]
        self._seen[new] = 1
        self._rows.append(new)
        self._old.append((self._values[new], self._state[new]))

    def take_back(self) -> tuple[Rows, Floats, Doubles]:
        """Restores every row; returns rows (ascending), displacement and added state."""
        rows = np.concatenate([*self._rows, np.empty(0, np.int32)])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        values = np.concatenate([v for v, _ in self._old] or [self._values[:0]])[order]
        state = np.concatenate([s for _, s in self._old] or [self._state[:0]])[order]
        moved, added = self._values[rows] - values, self._state[rows] - state
        self._values[rows], self._state[rows] = values, state
        self._seen[rows] = 0
        self._rows, self._old = [], []
        return rows, moved, added


class Workspace:
    """Scratch arrays of a task, as large as the parameters, made once and reused by its blocks."""

    def __init__(self, parameters: Parameters) -> None:
        rows, k = parameters.factors.shape
        n_items = parameters.n_items
        self.grad = np.empty((rows, k), np.float32)
        self.touched = np.zeros(rows, np.uint8)
        self.rows = np.empty(rows, np.int32)
        self.grad_bias = np.empty((n_items, 1), np.float32)
        self.touched_items = np.zeros(n_items, np.uint8)
        self.items = np.empty(n_items, np.int32)
        self.undo = _Undo(parameters.factors, parameters.factors_state)
        self.undo_bias = _Undo(parameters.bias.reshape(-1, 1), parameters.bias_state)


class Minibatch(NamedTuple):
    """Chunks of positives with their targets and shared negatives."""

    chunk_ptr: npt.NDArray[np.int64]
    chunk_start: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    target: Rows
    negative: Rows


def minibatches(
    found: Positives, order: Chunks, target: Rows, sampler: Sampler, settings: Settings, rng: np.random.Generator
) -> Iterator[Minibatch]:
    """Groups the chunks, in order, into minibatches of about ``batch_size`` positives."""
    size = order.last - order.first
    batch = np.cumsum(size) // settings.batch_size
    edges = np.flatnonzero(np.diff(batch, prepend=-1, append=-1 if len(batch) == 0 else batch[-1] + 1))
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        ptr = np.concatenate([[0], np.cumsum(size[begin:end])]).astype(np.int64)
        index = np.repeat(order.first[begin:end] - ptr[:-1], size[begin:end]) + np.arange(ptr[-1])
        drawn = np.searchsorted(sampler.cumulative, rng.random(settings.negatives), side="right")
        negative = np.minimum(drawn, len(sampler.cumulative) - 1).astype(np.int32)
        yield Minibatch(ptr, order.start[begin:end], found.position[index], target[index], negative)


def add_gradient(
    parameters: Parameters,
    work: Workspace,
    sequences: Sequences,
    batch: Minibatch,
    settings: Settings,
    correction: Floats,
    counts: tuple[int, int] = (0, 0),
) -> tuple[float, float, int, int]:
    """Adds the minibatch's gradient to the scratch rows; returns loss, weight and the touched rows' and items' numbers."""
    n_items = parameters.n_items
    decays = np.asarray(settings.decays)
    window = history.windows(decays)
    query = np.empty((len(batch.position), parameters.factors.shape[1]), np.float32)
    where = (n_items, decays, window, sequences.item, sequences.liked, batch.chunk_ptr, batch.chunk_start, batch.position)
    history.forward(parameters.factors, *where, query)
    weight = sequences.weight[batch.position]
    g = softmax_gradient(
        query, batch.target, batch.negative, parameters.item_factors, parameters.bias, correction, weight
    )
    n = history.backward(work.grad, work.touched, work.rows, counts[0], *where, g.query)
    m = counts[1]
    offset = (parameters.n_tables - 1) * n_items
    for index, factors, bias in (
        (batch.target, g.target_factors, g.target_bias),
        (batch.negative, g.negative_factors, g.negative_bias),
    ):
        n, m = _scatter(
            index, offset, factors, bias, work.grad, work.grad_bias[:, 0], work.touched, work.rows, n,
            work.touched_items, work.items, m,
        )  # fmt: skip
    return g.loss, float(weight.sum()), n, m


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
    """
    found = positives(sequences)
    order = visit_order(found, settings.chunk_size, rng)
    target = draw_targets(sequences, found, settings.target_decay, rng)
    loss = events = 0.0
    bias = parameters.bias.reshape(-1, 1)
    for batch in minibatches(found, order, target, sampler, settings, rng):
        batch_loss, weight, n, m = add_gradient(parameters, work, sequences, batch, settings, sampler.correction)
        loss, events = loss + batch_loss, events + weight
        work.undo.remember(work.rows[:n])
        work.undo_bias.remember(work.items[:m])
        rate = settings.learning_rate
        _step(parameters.factors, parameters.factors_state, work.grad, work.touched, work.rows, n, rate, np.float32(settings.l2))
        _step(bias, parameters.bias_state, work.grad_bias, work.touched_items, work.items, m, rate, np.float32(settings.l2_bias))
    rows, moved, state = work.undo.take_back()
    items, moved_bias, bias_state = work.undo_bias.take_back()
    return Move(rows, moved, state, items, moved_bias[:, 0], bias_state, loss, events)
