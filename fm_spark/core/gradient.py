"""The gradient of one minibatch of positives: forward through the history, sampled softmax, backward."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core import history
from fm_spark.core.context import add_features, event_features, features_backward
from fm_spark.core.fm_events import Features
from fm_spark.core.parameters import Doubles, Floats, Parameters, context_offset
from fm_spark.core.plan import Chunks, Part, Positives
from fm_spark.core.prefetch import AHEAD, prefetch_item
from fm_spark.core.scratch import Scratch
from fm_spark.core.sequences import Sequences
from fm_spark.core.softmax import softmax_gradient
from fm_spark.core.touched import Rows, Touched, place_of


class Settings(NamedTuple):
    """What a block must know to train; everything resolved, nothing ``auto``.

    Attributes:
        part: which positives of a block the round visits; the default is all of them.
        bias_rate: rate of the items' biases, as a multiple of ``learning_rate``.
    """

    decays: tuple[float, ...]
    learning_rate: float
    l2: float
    l2_bias: float
    batch_size: int
    negatives: int
    target_decay: float
    chunk_size: int = 64
    part: Part = Part()
    bias_rate: float = 1.0


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
    index, offset, source, scale, source_bias, grad, place, rows, n, grad_bias, bias_place, items, m
):
    """Adds item-side gradients, ``scale[j] * source[j]``; returns the new numbers of rows and items."""
    k = grad.shape[1]
    for j in range(len(index)):
        if j + AHEAD < len(index):
            prefetch_item(place, offset + index[j + AHEAD])
        at, n, first = place_of(place, rows, n, offset + index[j])
        if first:
            for f in range(k):
                grad[at, f] = scale[j] * source[j, f]
        else:
            for f in range(k):
                grad[at, f] += scale[j] * source[j, f]
        at, m, first = place_of(bias_place, items, m, index[j])
        grad_bias[at, 0] = source_bias[j] if first else grad_bias[at, 0] + source_bias[j]
    return n, m


class Workspace:
    """Scratch arrays of a task, made once and reused by its blocks and rounds.

    Attributes:
        factors, bias: gradients and old values of the factor rows and of the items' biases.
        scratch: arrays of a minibatch.
    """

    def __init__(self, shape: tuple[int, int], n_items: int) -> None:
        self.factors = Touched(*shape)
        self.bias = Touched(n_items, 1)
        self.scratch = Scratch()

    def nbytes(self) -> int:
        """Bytes that follow from the size of the parameters."""
        return self.factors.nbytes() + self.bias.nbytes()

    def clear(self) -> None:
        """Forgets what a block left which stopped half-way."""
        self.factors.clear()
        self.bias.clear()


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
        ptr = np.zeros(end - begin + 1, np.int64)
        np.cumsum(size[begin:end], out=ptr[1:])
        negative = _draw(sampler.cumulative, np.sort(rng.random(settings.negatives)))
        chosen, predicted = _gather(order.first[begin:end], ptr, found.position, target)
        yield Minibatch(ptr, order.start[begin:end], chosen, predicted, negative)


@njit(cache=True, nogil=True)
def _gather(first, ptr, position, target):  # type: ignore[no-untyped-def]
    """The positions and targets of chunks, one after the other."""
    positions, targets = np.empty(ptr[-1], position.dtype), np.empty(ptr[-1], target.dtype)
    for c in range(len(first)):
        for j in range(ptr[c], ptr[c + 1]):
            positions[j] = position[first[c] + j - ptr[c]]
            targets[j] = target[first[c] + j - ptr[c]]
    return positions, targets


@njit(cache=True, nogil=True)
def _draw(cumulative, uniform):  # type: ignore[no-untyped-def]
    """The items in whose share of [0, 1) ascending numbers fall, int32; each search begins where the last one ended."""
    last = len(cumulative) - 1
    items = np.empty(len(uniform), np.int32)
    low = 0
    for j in range(len(uniform)):
        high, step = low, 1
        while high < last and cumulative[high] <= uniform[j]:
            low, high, step = high + 1, min(last, high + step), 2 * step
        while low < high:
            middle = (low + high) // 2
            if cumulative[middle] <= uniform[j]:
                low = middle + 1
            else:
                high = middle
        items[j] = low
    return items


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
        counts: how many rows and items have a gradient in the scratch already; (0, 0) starts afresh.

    Returns:
        Summed loss, summed weight, and the new counts: ``work.factors.grad[:n]`` are the gradients of
        ``work.factors.rows[:n]``, ``work.bias.grad[:m]`` those of the biases of the items ``work.bias.rows[:m]``.
    """
    where = (
        parameters.n_items,
        *_decays(settings.decays),
        sequences.item,
        sequences.liked,
        batch.chunk_ptr,
        batch.chunk_start,
        batch.position,
    )
    query = work.scratch.take("query", len(batch.position), parameters.factors.shape[1])
    history.forward(parameters.factors, *where, query)
    context = _context(parameters, sequences, batch, settings)
    if context is not None:
        add_features(parameters.factors, context, query)
    weight = sequences.weight[batch.position]
    g = softmax_gradient(
        query, batch.target, batch.negative, parameters.item_factors, parameters.bias, correction, weight, work.scratch
    )
    wide, narrow = work.factors, work.bias
    n, m = history.backward(wide.grad, wide.place, wide.rows, counts[0], *where, g.query), counts[1]
    if context is not None:
        n = features_backward(wide.grad, wide.place, wide.rows, n, context, g.query)
    offset = len(parameters.factors) - parameters.n_items
    for index, source, scale, bias in (
        (batch.target, query, g.target_bias, g.target_bias),
        (batch.negative, g.negative_factors, np.ones(len(batch.negative), np.float32), g.negative_bias),
    ):
        n, m = _scatter(
            index, offset, source, scale, bias, wide.grad, wide.place, wide.rows, n,
            narrow.grad, narrow.place, narrow.rows, m,
        )  # fmt: skip
    return g.loss, float(weight.sum()), n, m


def _context(parameters: Parameters, sequences: Sequences, batch: Minibatch, settings: Settings) -> Features | None:
    """The context features of the minibatch's events as rows of the parameters; None when no field is switched on."""
    if sequences.context is None:
        return None
    of_chunk = np.searchsorted(sequences.ptr, batch.chunk_start, side="right") - 1
    owner = np.repeat(of_chunk, np.diff(batch.chunk_ptr))
    first_row = context_offset(len(settings.decays), parameters.n_items)
    return event_features(sequences.context, batch.position, owner, first_row)


@functools.cache
def _decays(decays: tuple[float, ...]) -> tuple[Doubles, npt.NDArray[np.int64]]:
    values = np.array(decays, np.float64)
    return values, history.windows(values)


def check_loss(loss: float) -> None:
    """Stops a block whose numbers left the finite ones, before they reach the parameters.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss of a minibatch is {loss}")
