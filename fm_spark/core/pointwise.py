"""Losses of single events: the model's value of an event and the loss's slopes, in O(k nnz) an event.

The model has these terms, with v_u the user's row, v_i the item's, x_j v_j the static features of event and item, and
b = sum_m x_m v_m the user's bag:

    y = w0 + w_u + w_i + sum_j w_j x_j + all pairs among {v_u, v_i, x_j v_j} + <b, v_i + sum_j x_j v_j>

Left out, as in SVD++: linear weights of the bag, its interaction with the user's row, and the pairs within it; all
three are constants of the user, which w_u learns.

Pairs are added one feature at a time, y += <c, x_j v_j>, then c += x_j v_j; no large numbers are subtracted. The
gradient of row j is y' x_j (c - x_j v_j) with the final c.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fm_spark.core.fm_events import Events, Features, Floats
from fm_spark.core.fm_parameters import FmParameters

SQUARED, LOGISTIC = 0, 1


@njit(inline="always")
def slopes(loss, y, label):  # type: ignore[no-untyped-def]
    """Loss of one event, its first and its second derivative in y; ``logistic`` in log-odds y, label 0 or 1."""
    if loss == SQUARED:
        error = y - label
        return np.float32(0.5) * error * error, error, np.float32(1.0)
    one = np.float32(1.0)
    z = math.exp(-abs(y))
    p = one / (one + z) if y >= 0 else z / (one + z)
    return math.log1p(z) + max(y, np.float32(0.0)) - label * y, p - label, p * (one - p)


@njit(inline="always")
def add_feature(factors, row, x, c):  # type: ignore[no-untyped-def]
    """<c, x v_row>; c becomes c + x v_row."""
    dot = np.float32(0.0)
    for f in range(len(c)):
        value = x * factors[row, f]
        dot += c[f] * value
        c[f] += value
    return dot


@njit(inline="always")
def add_list(factors, linear, features, i, c):  # type: ignore[no-untyped-def]
    """Adds the features of thing i: what they contribute to y; changes c."""
    y = np.float32(0.0)
    for p in range(features.ptr[i], features.ptr[i + 1]):
        row, x = features.row[p], features.value[p]
        y += x * linear[row] + add_feature(factors, row, x, c)
    return y


@njit(inline="always")
def bag_vector(factors, bag, u, out):  # type: ignore[no-untyped-def]
    """Writes b of user u; returns the sum of its squared values."""
    for f in range(len(out)):
        out[f] = np.float32(0.0)
    square = np.float32(0.0)
    for p in range(bag.ptr[u], bag.ptr[u + 1]):
        row, x = bag.row[p], bag.value[p]
        square += x * x
        for f in range(len(out)):
            out[f] += x * factors[row, f]
    return square


@njit(inline="always")
def score(parameters, events, side, item_offset, e, b, c):  # type: ignore[no-untyped-def]
    """y of event e without w0, given its user's bag vector; leaves the sum of all feature vectors in c."""
    factors, linear = parameters.factors, parameters.linear
    u, i = events.user[e], events.item[e]
    y = np.float32(0.0)
    if u >= 0:
        y += linear[u]
        for f in range(len(c)):
            c[f] = b[f] + factors[u, f]
    else:
        for f in range(len(c)):
            c[f] = b[f]
    y += linear[i] + add_feature(factors, i, np.float32(1.0), c)
    y += add_list(factors, linear, side, i - item_offset, c)
    return y + add_list(factors, linear, events.context, e, c)


@njit(cache=True, nogil=True, fastmath=True)
def predict(parameters: FmParameters, events: Events, side: Features, item_offset: int, out: Floats) -> None:
    """Writes y of every event to ``out`` ([n_events]), in the precision of the parameters.

    Args:
        side: static features of the items, n = n_items.
        item_offset: row of item 0.
    """
    factors = parameters.factors
    b, c = np.empty(factors.shape[1], factors.dtype), np.empty(factors.shape[1], factors.dtype)
    w0 = parameters.linear[-1]
    for u in range(len(events.ptr) - 1):
        bag_vector(parameters.factors, events.bag, u, b)
        for e in range(events.ptr[u], events.ptr[u + 1]):
            out[e] = w0 + score(parameters, events, side, item_offset, e, b, c)
