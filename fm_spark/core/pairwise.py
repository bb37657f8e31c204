"""BPR: a user's event is ranked above sampled items; kernels that train and predict.

Of the model of :mod:`fm_spark.core.pointwise` only what differs between two items is left. With q the sum of the
user's row, his bag and the event's context, and a_i the sum of the item's row and its static features,

    y_i - y_j,    y_i = w_i + sum_j w_j x_j + pairs among the item's own features + <q, a_i>
    loss = -log sigma(y_i - y_j)

w0, the linear weights of the query's features and the pairs within the query cancel and are not learnt.

Source:
    Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback".
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.fm_events import Events, Features, Floats, Rows
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.pointwise import add_list, bag_vector
from fm_spark.core.pointwise_steps import Steps, Visits, step_bag, step_list, step_row


def draw_negatives(
    cumulative: npt.NDArray[np.float64], shape: tuple[int, int], item_offset: int, rng: np.random.Generator
) -> Rows:
    """Rows of sampled items, int32 of the given shape [n_events, negatives].

    Args:
        cumulative: float64 [n_items], cumulative probabilities, for example ``make_sampler(count, power).cumulative``;
            power 0 is uniform. A negative that is the event's own item is skipped later.
    """
    drawn = np.searchsorted(cumulative, rng.random(shape), side="right")
    return (np.minimum(drawn, len(cumulative) - 1) + item_offset).astype(np.int32)


@njit(inline="always")
def pair_slopes(difference):  # type: ignore[no-untyped-def]
    """-log sigma(d), its first and its second derivative in d."""
    one = np.float32(1.0)
    z = math.exp(-abs(difference))
    p = one / (one + z) if difference < 0 else z / (one + z)  # sigma(-d)
    return math.log1p(z) + max(-difference, np.float32(0.0)), -p, p * (one - p)


@njit(inline="always")
def query_vector(factors, events, e, b, q):  # type: ignore[no-untyped-def]
    """Writes q of event e, given the bag vector b of its user."""
    u = events.user[e]
    if u >= 0:
        for f in range(len(q)):
            q[f] = b[f] + factors[u, f]
    else:
        for f in range(len(q)):
            q[f] = b[f]
    for p in range(events.context.ptr[e], events.context.ptr[e + 1]):
        row, x = events.context.row[p], events.context.value[p]
        for f in range(len(q)):
            q[f] += x * factors[row, f]


@njit(inline="always")
def item_score(parameters, side, item_offset, i, q, a):  # type: ignore[no-untyped-def]
    """y_i of the item in row i; leaves a_i in ``a``."""
    factors, linear = parameters.factors, parameters.linear
    for f in range(len(a)):
        a[f] = factors[i, f]
    y = linear[i] + add_list(factors, linear, side, i - item_offset, a)
    for f in range(len(q)):
        y += q[f] * a[f]
    return y


@njit(inline="always")
def _step_query_row(factors, steps, row, x, toward, slope, stats):  # type: ignore[no-untyped-def]
    """One update of a row whose gradient is g x toward; slope = (g, h, weight)."""
    g, h, weight = slope
    step = steps.rate_factors * g * x
    keep = np.float32(1.0) - steps.rate_factors * weight * steps.l2_factors
    square = np.float32(0.0)
    for f in range(len(toward)):
        square += toward[f] * toward[f]
        factors[row, f] = keep * factors[row, f] - step * toward[f]
    stats[row, 0] += steps.rate_factors * (h * x * x * square / np.float32(len(toward)) + weight * steps.l2_factors)


@njit(inline="always")
def _step_pair(parameters, events, side, item_offset, steps, e, j, vectors, stats):  # type: ignore[no-untyped-def]
    """Trains on event e against the item in row j; returns loss, first and second derivative times the weight.

    ``vectors`` = (b, q, a_i, a_j); afterwards a_i holds a_i - a_j, the derivative of the difference in q.
    """
    b, q, own, other = vectors
    i, weight = events.item[e], events.weight[e]
    query_vector(parameters.factors, events, e, b, q)
    difference = item_score(parameters, side, item_offset, i, q, own)
    difference -= item_score(parameters, side, item_offset, j, q, other)
    value, g, h = pair_slopes(difference)
    g, h = weight * g, weight * h
    for f in range(len(q)):
        own[f] += q[f]
        other[f] += q[f]
    for row, toward, sign in ((i, own, g), (j, other, -g)):
        slope = (sign, h, weight)
        step_row(parameters, steps, row, np.float32(1.0), toward, slope, stats)
        step_list(parameters, steps, side, row - item_offset, toward, slope, stats)
    for f in range(len(q)):
        own[f] -= other[f]
    slope = (g, h, weight)
    if events.user[e] >= 0:
        _step_query_row(parameters.factors, steps, events.user[e], np.float32(1.0), own, slope, stats)
    for p in range(events.context.ptr[e], events.context.ptr[e + 1]):
        row, x = events.context.row[p], events.context.value[p]
        _step_query_row(parameters.factors, steps, row, x, own, slope, stats)
    return weight * value, g, h


@njit(cache=True, nogil=True, fastmath=True)
def sgd_pairs(
    parameters: FmParameters,
    events: Events,
    side: Features,
    item_offset: int,
    negative: Rows,
    steps: Steps,
    visits: Visits,
    stats: Floats,
) -> float:
    """One pass over the events, each against its negatives one after the other; returns the summed loss.

    Args:
        negative: int32 [n_events, negatives], rows of items; see :func:`fm_spark.core.pointwise_steps.sgd` for the
            other arguments.
    """
    k = parameters.factors.shape[1]
    vectors = np.empty((4, k), np.float32)
    b, pull, total = vectors[0], np.empty(k, np.float32), 0.0
    for v in range(len(visits.first)):
        owner = visits.owner[v]
        square = bag_vector(parameters.factors, events.bag, owner, b)
        for f in range(k):
            pull[f] = np.float32(0.0)
        curvature, touched = np.float32(0.0), np.float32(0.0)
        for e in range(visits.first[v], visits.last[v]):
            for s in range(negative.shape[1]):
                if negative[e, s] == events.item[e]:
                    continue
                toward = vectors[2]
                value, g, h = _step_pair(
                    parameters, events, side, item_offset, steps, e, negative[e, s],
                    (b, vectors[1], toward, vectors[3]), stats,
                )  # fmt: skip
                total += value
                length = np.float32(0.0)
                for f in range(k):
                    length += toward[f] * toward[f]
                    pull[f] += steps.rate_factors * g * toward[f]
                    b[f] -= steps.rate_factors * g * square * toward[f]
                touched += events.weight[e]
                curvature += steps.rate_factors * h * length / np.float32(k)
        if square > 0.0:
            step_bag(parameters.factors, steps, events.bag, owner, pull, (curvature, touched), stats)
    return total


@njit(cache=True, nogil=True, fastmath=True)
def predict_ranking(parameters: FmParameters, events: Events, side: Features, item_offset: int, out: Floats) -> None:
    """Writes y_i of every event's item to ``out`` (float32 [n_events]); comparable within one user and context."""
    b, q, a = np.empty((3, parameters.factors.shape[1]), np.float32)
    for u in range(len(events.ptr) - 1):
        bag_vector(parameters.factors, events.bag, u, b)
        for e in range(events.ptr[u], events.ptr[u + 1]):
            query_vector(parameters.factors, events, e, b, q)
            out[e] = item_score(parameters, side, item_offset, events.item[e], q, a)
