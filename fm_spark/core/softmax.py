"""Sampled softmax with negatives shared by a minibatch: loss and gradient as matrix products."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.prefetch import AHEAD, prefetch_row
from fm_spark.core.scratch import Scratch

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_MASKED = np.float32(-1e30)
# without assuming that all is finite: a loss that is not has to be seen
_FINITE_OR_NOT = {"reassoc", "contract", "nsz", "arcp"}
_PER_LOG_2 = np.float32(1.0 / math.log(2.0))
# 2^x on [-1/2, 1/2]: Taylor's series, whose next term is below the rounding of float32
_POWER = tuple(np.float32(math.log(2.0) ** n / math.factorial(n)) for n in range(8))


class SoftmaxGradient(NamedTuple):
    """Loss and gradients of one minibatch of B events against S shared negatives.

    Attributes:
        loss: weighted sum of -log p(target) over the events, nats.
        query: float32 [B, k].
        target_bias: float32 [B]; the gradient of the target's factors is this times the query.
        negative_factors, negative_bias: float32 [S, k] and [S].
    """

    loss: float
    query: Floats
    target_bias: Floats
    negative_factors: Floats
    negative_bias: Floats


@njit(inline="always")
def _exp(x):  # type: ignore[no-untyped-def]
    """exp of a float32 x <= 0 to a relative error of (1 + |x|) 1e-7; 0 where it is below 1e-38.

    Written out, because a call to the library's would keep the loop around it from being vectorised.
    """
    power = x * _PER_LOG_2
    power = np.float32(-127.0) if power < np.float32(-127.0) else power
    whole = np.int32(power - np.float32(0.5))  # to the nearest, because the power is not positive
    part = power - np.float32(whole)
    value = _POWER[7]
    for n in range(6, -1, -1):
        value = value * part + _POWER[n]
    return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always")
def _ordered(bits):  # type: ignore[no-untyped-def]
    """A float32's bits as an int32 that compares as the number does, and such an int32's bits again."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(inline="always")
def _largest(row, first):  # type: ignore[no-untyped-def]
    """The largest of a row and ``first``; by integers, because only their maximum is vectorised."""
    bits = row.view(np.int32)
    top = _ordered(np.float32(first).view(np.int32))
    for s in range(len(bits)):
        top = max(top, _ordered(bits[s]))
    return _ordered(top).view(np.float32)


@njit(cache=True, nogil=True, fastmath=_FINITE_OR_NOT)
def _shares(  # type: ignore[no-untyped-def]
    logits, query, target, negative, shift, item_factors, item_bias, weight, pull, negative_bias
):
    """Turns the products with the negatives into the loss's derivatives, a row at a time in the nearest cache.

    Returns the loss; ``logits``, ``pull`` and ``negative_bias`` are overwritten.
    """
    loss = 0.0
    negative_bias[:] = 0.0
    for b in range(len(target)):
        if b + AHEAD < len(target):
            prefetch_row(item_factors, target[b + AHEAD])
        row, chosen = logits[b], target[b]
        own = item_bias[chosen]
        for f in range(query.shape[1]):
            own += query[b, f] * item_factors[chosen, f]
        total = np.float32(0.0)
        for s in range(len(negative)):
            y = row[s] + shift[s]
            total += y
            row[s] = _MASKED if negative[s] == chosen else y
        if not np.isfinite(total):
            return np.nan
        top = _largest(row, own)
        own_share = _exp(own - top)
        total = own_share
        for s in range(len(negative)):
            row[s] = _exp(row[s] - top)
            total += row[s]
        loss += weight[b] * (math.log(total) + top - own)
        scale = weight[b] / total
        pull[b] = own_share * scale - weight[b]
        for s in range(len(negative)):
            row[s] *= scale
            negative_bias[s] += row[s]
    return loss


@njit(cache=True, nogil=True, fastmath=True)
def _add_targets(grad_query, pull, target, item_factors):  # type: ignore[no-untyped-def]
    for b in range(len(target)):
        if b + AHEAD < len(target):
            prefetch_row(item_factors, target[b + AHEAD])
        for f in range(grad_query.shape[1]):
            grad_query[b, f] += pull[b] * item_factors[target[b], f]


# a loss that is not finite is found by its value
@np.errstate(over="ignore", invalid="ignore")
def softmax_gradient(
    query: Floats,
    target: Ints,
    negative: Ints,
    item_factors: Floats,
    item_bias: Floats,
    correction: Floats,
    weight: Floats,
    scratch: Scratch | None = None,
) -> SoftmaxGradient:
    """Loss and gradient of -w log( exp(y_target) / (exp(y_target) + sum over negatives exp(y_j - correction_j)) ).

    A negative that is the event's target is masked.

    Args:
        query: float32 [B, k], s_q of the events.
        target: int32 [B], the item that was chosen.
        negative: int32 [S], sampled items, shared by the minibatch.
        item_factors: float32 [n_items, k].
        item_bias: float32 [n_items].
        correction: float32 [n_items], log(q_i n_items) for the probability q_i of drawing item i.
        weight: float32 [B], how often each event counts.
        scratch: holds the arrays of the result, which its next user overwrites.

    Source:
        Bengio and Senecal 2008, "Adaptive importance sampling", for the logit correction; Rendle 2010, eq. 1, for y.
    """
    held = Scratch() if scratch is None else scratch
    (size, k), n = query.shape, len(negative)
    factors = np.take(item_factors, negative, axis=0, out=held.take("negative factors", n, k), mode="clip")
    logits = np.matmul(query, factors.T, out=held.take("logits", size, n))
    pull, negative_bias = held.take("target bias", size), held.take("negative bias", n)
    shift = item_bias[negative] - correction[negative]
    loss = _shares(logits, query, target, negative, shift, item_factors, item_bias, weight, pull, negative_bias)
    grad_query = np.matmul(logits, factors, out=held.take("query gradient", size, k))
    _add_targets(grad_query, pull, target, item_factors)
    grad_negative = np.matmul(logits.T, query, out=held.take("negative gradient", n, k))
    return SoftmaxGradient(float(loss), grad_query, pull, grad_negative, negative_bias)
