"""Synchronous minibatches of events (design 5A): the plain sum of gradients at the broadcast point.

Every event's gradient is rounded to an integer on its own, a user's bag once for all his events, and negatives come
from a stream of the user's own; so the sum has the same bits for any dealing of the users to blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.combine import GRADIENT_GRID, LOSS_GRID, MoveSum, RowSum
from fm_spark.core.constant_steps import POINTWISE, EventSettings, ItemTable
from fm_spark.core.fm_events import Events, Features, Rows
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.gradient import check_loss
from fm_spark.core.optimisers import ADAGRAD, row_state, step_rows
from fm_spark.core.pairwise import draw_negatives, item_score, pair_slopes, query_vector
from fm_spark.core.pointwise import bag_vector, score, slopes
from fm_spark.core.pointwise_steps import Steps

Ints = npt.NDArray[np.int64]


class FmState(NamedTuple):
    """The optimiser's state of the rows of the factors, n_rows, and of linear weights and w0, n_rows + 1.

    Arrays of :func:`~fm_spark.core.optimisers.row_state`.
    """

    factors: npt.NDArray[np.float64]
    linear: npt.NDArray[np.float64]


class _Totals(NamedTuple):
    """Dense integer sums: int64 [n_rows, k], int64 [n_rows + 1, 1], and how often each row was touched."""

    factors: Ints
    linear: Ints
    factors_touched: npt.NDArray[np.int32]
    linear_touched: npt.NDArray[np.int32]


@njit(inline="always")
def _add_direction(totals, row, x, toward, g):  # type: ignore[no-untyped-def]
    """Adds the gradient g x toward of the row's factors."""
    totals.factors_touched[row] += 1
    for f in range(len(toward)):
        totals.factors[row, f] += np.int64(np.rint(np.float64(g * x * toward[f]) * GRADIENT_GRID))


@njit(inline="always")
def _add_row(totals, factors, row, x, toward, g):  # type: ignore[no-untyped-def]
    """Adds the gradients g x (toward - x v) of the row's factors and g x of its linear weight."""
    totals.factors_touched[row] += 1
    for f in range(len(toward)):
        value = g * x * (toward[f] - x * factors[row, f])
        totals.factors[row, f] += np.int64(np.rint(np.float64(value) * GRADIENT_GRID))
    _add_linear(totals, row, g * x)


@njit(inline="always")
def _add_linear(totals, row, g):  # type: ignore[no-untyped-def]
    totals.linear_touched[row] += 1
    totals.linear[row, 0] += np.int64(np.rint(np.float64(g) * GRADIENT_GRID))


@njit(inline="always")
def _add_item(totals, factors, side, item_offset, i, toward, g):  # type: ignore[no-untyped-def]
    """Adds the gradients of the item in row i and of its static features."""
    _add_row(totals, factors, i, np.float32(1.0), toward, g)
    for p in range(side.ptr[i - item_offset], side.ptr[i - item_offset + 1]):
        _add_row(totals, factors, side.row[p], side.value[p], toward, g)


@njit(inline="always")
def _add_bag(totals, bag, u, pull):  # type: ignore[no-untyped-def]
    for p in range(bag.ptr[u], bag.ptr[u + 1]):
        _add_direction(totals, bag.row[p], bag.value[p], pull, np.float32(1.0))


@njit(cache=True, nogil=True, fastmath=True)
def _pointwise(
    parameters: FmParameters, events: Events, side: Features, item_offset: int, loss: int, totals: _Totals
) -> tuple[int, float]:
    """Adds the gradients of all events; returns the summed loss, / LOSS_GRID and as it is."""
    factors = parameters.factors
    k, w0_row = factors.shape[1], len(factors)
    b, c, toward, pull = np.empty((4, k), np.float32)
    one, total, check = np.float32(1.0), 0, 0.0
    for owner in range(len(events.ptr) - 1):
        bag_vector(factors, events.bag, owner, b)
        pull[:] = 0.0
        for e in range(events.ptr[owner], events.ptr[owner + 1]):
            u, i, weight = events.user[e], events.item[e], events.weight[e]
            y = parameters.linear[-1] + score(parameters, events, side, item_offset, e, b, c)
            value, g, _ = slopes(loss, y, events.label[e])
            g *= weight
            total += int(np.rint(np.float64(weight * value) * LOSS_GRID))
            check += value
            for f in range(k):
                toward[f] = c[f] - b[f]
                pull[f] += g * (toward[f] - factors[u, f] if u >= 0 else toward[f])
            if u >= 0:
                _add_row(totals, factors, u, one, toward, g)
            _add_item(totals, factors, side, item_offset, i, c, g)
            for p in range(events.context.ptr[e], events.context.ptr[e + 1]):
                _add_row(totals, factors, events.context.row[p], events.context.value[p], c, g)
            _add_linear(totals, w0_row, g)
        if events.ptr[owner + 1] > events.ptr[owner]:
            _add_bag(totals, events.bag, owner, pull)
    return total, check


@njit(cache=True, nogil=True, fastmath=True)
def _pairwise(
    parameters: FmParameters, events: Events, side: Features, item_offset: int, negative: Rows, totals: _Totals
) -> tuple[int, float]:
    """Adds the gradients of all pairs; returns the summed loss, / LOSS_GRID and as it is."""
    factors = parameters.factors
    b, q, own, other, pull = np.empty((5, factors.shape[1]), np.float32)
    one, total, check = np.float32(1.0), 0, 0.0
    for owner in range(len(events.ptr) - 1):
        bag_vector(factors, events.bag, owner, b)
        pull[:] = 0.0
        for e in range(events.ptr[owner], events.ptr[owner + 1]):
            i, u = events.item[e], events.user[e]
            for j in negative[e]:
                if i == j:
                    continue
                query_vector(factors, events, e, b, q)
                difference = item_score(parameters, side, item_offset, i, q, own)
                difference -= item_score(parameters, side, item_offset, j, q, other)
                value, g, _ = pair_slopes(difference)
                g *= events.weight[e]
                total += int(np.rint(np.float64(events.weight[e] * value) * LOSS_GRID))
                check += value
                own += q
                other += q
                _add_item(totals, factors, side, item_offset, i, own, g)
                _add_item(totals, factors, side, item_offset, j, other, -g)
                own -= other
                pull += g * own
                if u >= 0:
                    _add_direction(totals, u, one, own, g)
                for p in range(events.context.ptr[e], events.context.ptr[e + 1]):
                    _add_direction(totals, events.context.row[p], events.context.value[p], own, g)
        if events.ptr[owner + 1] > events.ptr[owner]:
            _add_bag(totals, events.bag, owner, pull)
    return total, check


def event_gradient_sum(
    parameters: FmParameters, events: Events, items: ItemTable, settings: EventSettings, key: tuple[int, int]
) -> MoveSum:
    """The summed gradient of a block's events at ``parameters`` without L2, on the integer grid.

    The bias part holds the linear weights; its row n_rows is w0. ``RowSum.blocks`` counts touches.

    Args:
        key: 64-bit seed and epoch; with the user they make the stream of random numbers.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    n_rows, k = parameters.factors.shape
    totals = _Totals(
        np.zeros((n_rows, k), np.int64), np.zeros((n_rows + 1, 1), np.int64),
        np.zeros(n_rows, np.int32), np.zeros(n_rows + 1, np.int32),
    )  # fmt: skip
    if settings.loss == "bpr":
        negative = user_negatives(events, items, settings.negatives, key)
        loss, check = _pairwise(parameters, events, items.side, items.offset, negative, totals)
    else:
        loss, check = _pointwise(parameters, events, items.side, items.offset, POINTWISE[settings.loss], totals)
    check_loss(check)
    weight = np.rint(events.weight.astype(np.float64) * LOSS_GRID).astype(np.int64)
    return MoveSum(
        _touched(totals.factors, totals.factors_touched),
        _touched(totals.linear, totals.linear_touched),
        int(loss),
        int(weight.sum()),
        0.0,
    )


def user_negatives(events: Events, items: ItemTable, negatives: int, key: tuple[int, int]) -> Rows:
    """Negatives of each user's events from a stream of his own, int32 [n_events, negatives]."""
    out = np.empty((len(events.item), negatives), np.int32)
    mask = (1 << 64) - 1
    for u in range(events.n_users):
        own = slice(events.ptr[u], events.ptr[u + 1])
        stream = np.array([key[0] & mask, (int(events.key[u]) ^ (key[1] << 48)) & mask], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=stream))
        out[own] = draw_negatives(items.cumulative, out[own].shape, items.offset, rng)
    return out


def _touched(total: Ints, touched: npt.NDArray[np.int32]) -> RowSum:
    rows = np.flatnonzero(touched).astype(np.int32)
    nothing = np.zeros(len(rows), np.int64)
    return RowSum(rows, total[rows], nothing, nothing, touched[rows])


def init_state(n_rows: int, k: int = 1, optimizer: str = ADAGRAD) -> FmState:
    """The state before the first step; ``k`` is read with ``adam``."""
    return FmState(row_state(optimizer, n_rows, k), row_state(optimizer, n_rows + 1, 1))


def event_gradient_step(
    parameters: FmParameters, state: FmState, total: MoveSum, steps: Steps, optimizer: str = ADAGRAD
) -> None:
    """One step of the driver in place with the summed gradient (:mod:`fm_spark.core.optimisers`).

    The rates and L2 of linear weights hold for w0 too.
    """
    rate, l2, linear = float(steps.rate_factors), float(steps.l2_factors), parameters.linear.reshape(-1, 1)
    step_rows(optimizer, total.factors, parameters.factors, state.factors, rate, l2)
    step_rows(optimizer, total.bias, linear, state.linear, float(steps.rate_linear), float(steps.l2_linear))
