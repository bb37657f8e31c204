"""The gradient of one minibatch of positives: forward through the history, sampled softmax, backward."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core import history
from fm_spark.core.parameters import Doubles, Floats, Parameters
from fm_spark.core.plan import Chunks, Positives
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
    chunk_size: int = 64


class Sampler(NamedTuple):
    """Draws negatives: float64 [n_items] cumulative probabilities, float32 [n_items] logit corrections."""

    cumulative: Doubles
    correction: Floats


def make_sampler(count: npt.NDArray[np.int64], power: float) -> Sampler:
    """Negatives with probability proportional to (count + 1)^power; correction log(q n_items)."""
    q = (count + 1.0) ** power
    q /= q.sum()
    return Sampler(np.cumsum(q), np.log(q * len(q)).astype(np.float32))


@njit(cache=True, nogil=True, fastmath=True)
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


class Workspace:
    """Scratch arrays of a task, as large as the parameters, made once and reused by its blocks and rounds."""

    def __init__(self, shape: tuple[int, int], n_items: int) -> None:
        rows, k = shape
        self.shape, self.n_items = shape, n_items
        self.grad = np.empty((rows, k), np.float32)
        self.touched = np.zeros(rows, np.uint8)
        self.rows = np.empty(rows, np.int32)
        self.grad_bias = np.empty((n_items, 1), np.float32)
        self.touched_items = np.zeros(n_items, np.uint8)
        self.items = np.empty(n_items, np.int32)

    def clear(self) -> None:
        """Forgets the marks that a block left which stopped half-way."""
        self.touched[:] = 0
        self.touched_items[:] = 0


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
    for begin, end in itertools.pairwise(edges):
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
    """Adds the minibatch's gradient (a sum over its events) to the scratch rows.

    Args:
        counts: how many rows and items are in the scratch already; (0, 0) starts afresh.

    Returns:
        Summed loss, summed weight, and the new counts: ``work.rows[:n]`` and ``work.items[:m]`` are touched.
    """
    n_items = parameters.n_items
    decays = np.asarray(settings.decays)
    window = history.windows(decays)
    query = np.empty((len(batch.position), parameters.factors.shape[1]), np.float32)
    where = (
        n_items,
        decays,
        window,
        sequences.item,
        sequences.liked,
        batch.chunk_ptr,
        batch.chunk_start,
        batch.position,
    )
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


def check_loss(loss: float) -> None:
    """Stops a block whose numbers left the finite ones, before they reach the parameters.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss of a minibatch is {loss}")
