"""SGD with a constant learning rate for the losses of single events: the kernels that train.

While it steps, a kernel notes in ``stats`` (float32 [n_rows + 1, 2], the last row is w0) what the rule of
:mod:`fm_spark.core.constant_steps` needs of each row: the sums over its updates of rate * curvature of its factors
(mean over k) and of its linear weight. Curvature is loss'' (dy / dtheta)^2 plus L2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from fm_spark.core.fm_events import Events, Features, Floats, Ints, Rows
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.pointwise import bag_vector, score, slopes
from fm_spark.core.prefetch import prefetch_row


class Steps(NamedTuple):
    """Learning rates and L2 per touch of w0 and of the linear weights, the factors and the bag's factors.

    An update is theta -= rate * weight * (gradient + l2 * theta). Every event of a user touches every row of his bag.
    """

    rate_bias: np.float32
    rate_linear: np.float32
    rate_factors: np.float32
    l2_bias: np.float32
    l2_linear: np.float32
    l2_factors: np.float32
    l2_bag: np.float32


class Visits(NamedTuple):
    """The order of a block's events: visit j takes the events ``first[j]:last[j]`` of the user ``owner[j]``.

    Attributes:
        first, last, owner: int64 [n_visits].
    """

    first: Ints
    last: Ints
    owner: Ints


# how many events ahead an item's row is asked for: most are in no near cache
AHEAD = 8


@njit(cache=True, nogil=True, fastmath=True)
def sgd_user_item(
    parameters: FmParameters, events: Events, loss: int, steps: Steps, order: Rows, stats: Floats
) -> float:
    """One pass over the events in the order ``order`` (int32 [n_events]) for models of the user and the item alone.

    This is :func:`sgd` without static features and bags, where all events have a user. Returns the summed loss.
    """
    factors, linear = parameters.factors, parameters.linear
    k = factors.shape[1]
    one, mean = np.float32(1.0), np.float32(1.0 / k)
    w0, w0_curvature, total = linear[-1], 0.0, 0.0
    for j in range(len(order)):
        e = order[j]
        if j + AHEAD < len(order):
            prefetch_row(factors, events.item[order[j + AHEAD]])
        u, i, weight = events.user[e], events.item[e], events.weight[e]
        dot, user_square, item_square = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for f in range(k):
            p, q = factors[u, f], factors[i, f]
            dot += p * q
            user_square += p * p
            item_square += q * q
        value, g, h = slopes(loss, w0 + linear[u] + linear[i] + dot, events.label[e])
        total += weight * value
        g, h = weight * g, weight * h
        step = steps.rate_factors * g
        keep = one - steps.rate_factors * weight * steps.l2_factors
        for f in range(k):
            p, q = factors[u, f], factors[i, f]
            factors[u, f] = keep * p - step * q
            factors[i, f] = keep * q - step * p
        shrink = one - steps.rate_linear * weight * steps.l2_linear
        linear[u] = shrink * linear[u] - steps.rate_linear * g
        linear[i] = shrink * linear[i] - steps.rate_linear * g
        w0 -= steps.rate_bias * (g + weight * steps.l2_bias * w0)
        linear_curvature = steps.rate_linear * (h + weight * steps.l2_linear)
        stats[u, 0] += steps.rate_factors * (h * item_square * mean + weight * steps.l2_factors)
        stats[i, 0] += steps.rate_factors * (h * user_square * mean + weight * steps.l2_factors)
        stats[u, 1] += linear_curvature
        stats[i, 1] += linear_curvature
        w0_curvature += h + weight * steps.l2_bias
    linear[-1] = w0
    stats[-1, 1] += steps.rate_bias * w0_curvature
    return total


@njit(inline="always")
def step_row(parameters, steps, row, x, toward, slope, stats):  # type: ignore[no-untyped-def]
    """One update of a row whose gradient is g x (toward - x v) for v and g x for w; slope = (g, h, weight)."""
    factors, linear = parameters.factors, parameters.linear
    g, h, weight = slope
    step = steps.rate_factors * g * x
    keep = np.float32(1.0) - steps.rate_factors * weight * steps.l2_factors
    square = np.float32(0.0)
    for f in range(len(toward)):
        v = factors[row, f]
        d = toward[f] - x * v
        square += d * d
        factors[row, f] = keep * v - step * d
    linear[row] -= steps.rate_linear * (g * x + weight * steps.l2_linear * linear[row])
    h *= x * x
    stats[row, 0] += steps.rate_factors * (h * square / np.float32(len(toward)) + weight * steps.l2_factors)
    stats[row, 1] += steps.rate_linear * (h + weight * steps.l2_linear)


@njit(inline="always")
def step_list(parameters, steps, features, i, toward, slope, stats):  # type: ignore[no-untyped-def]
    """:func:`step_row` for the features of thing i."""
    for p in range(features.ptr[i], features.ptr[i + 1]):
        step_row(parameters, steps, features.row[p], features.value[p], toward, slope, stats)


@njit(inline="always")
def step_w0(linear, steps, slope, stats):  # type: ignore[no-untyped-def]
    """One update of w0."""
    g, h, weight = slope
    linear[-1] -= steps.rate_bias * (g + weight * steps.l2_bias * linear[-1])
    stats[-1, 1] += steps.rate_bias * (h + weight * steps.l2_bias)


@njit(inline="always")
def step_bag(factors, steps, bag, u, pull, touch, stats):  # type: ignore[no-untyped-def]
    """Moves the rows of user u's bag by what his vector moved in one visit.

    ``pull``: float32 [k], sum over the visit of rate * g * d(y)/d(bag vector); ``touch`` = (rate * curvature of the
    bag vector, summed weight of the visit).
    """
    curvature, weight = touch
    decay = steps.rate_factors * steps.l2_bag * weight
    keep = np.float32(math.exp(-decay))  # of many small steps; a long visit must not overshoot
    for p in range(bag.ptr[u], bag.ptr[u + 1]):
        row, x = bag.row[p], bag.value[p]
        for f in range(len(pull)):
            factors[row, f] = keep * factors[row, f] - x * pull[f]
        stats[row, 0] += x * x * curvature + decay


@njit(cache=True, nogil=True, fastmath=True)
def sgd(
    parameters: FmParameters,
    events: Events,
    side: Features,
    item_offset: int,
    loss: int,
    steps: Steps,
    visits: Visits,
    stats: Floats,
) -> float:
    """One pass over the events, visit after visit; returns the summed loss.

    A user's bag is summed once a visit. Its vector then moves with every event, as its rows would, and the rows
    receive the sum of the moves at the end of the visit.

    Args:
        side: static features of the items, n = n_items; ``item_offset`` is the row of item 0.
    """
    factors, linear = parameters.factors, parameters.linear
    k = factors.shape[1]
    b, c, toward, pull = np.empty((4, k), np.float32)
    total = 0.0
    for j in range(len(visits.first)):
        owner = visits.owner[j]
        square = bag_vector(factors, events.bag, owner, b)
        for f in range(k):
            pull[f] = np.float32(0.0)
        curvature, touched = np.float32(0.0), np.float32(0.0)
        for e in range(visits.first[j], visits.last[j]):
            u, weight = events.user[e], events.weight[e]
            touched += weight
            y = linear[-1] + score(parameters, events, side, item_offset, e, b, c)
            value, g, h = slopes(loss, y, events.label[e])
            total += weight * value
            slope = (weight * g, weight * h, weight)
            for f in range(k):
                toward[f] = c[f] - b[f]
            if square > 0.0:
                length = np.float32(0.0)
                for f in range(k):
                    d = toward[f] - factors[u, f] if u >= 0 else toward[f]
                    length += d * d
                    pull[f] += steps.rate_factors * slope[0] * d
                    b[f] -= steps.rate_factors * slope[0] * square * d
                curvature += steps.rate_factors * slope[1] * length / np.float32(k)
            if u >= 0:
                step_row(parameters, steps, u, np.float32(1.0), toward, slope, stats)
            step_row(parameters, steps, events.item[e], np.float32(1.0), c, slope, stats)
            step_list(parameters, steps, side, events.item[e] - item_offset, c, slope, stats)
            step_list(parameters, steps, events.context, e, c, slope, stats)
            step_w0(linear, steps, slope, stats)
        if square > 0.0:
            step_bag(factors, steps, events.bag, owner, pull, (curvature, touched), stats)
    return total
