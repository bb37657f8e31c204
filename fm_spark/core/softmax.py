"""Sampled softmax with negatives shared by a minibatch: loss and gradient as matrix products."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class SoftmaxGradient(NamedTuple):
    """Loss and gradients of one minibatch of B events against S shared negatives.

    Attributes:
        loss: weighted sum of -log p(target) over the events, nats.
        query: float32 [B, k].
        target_factors, target_bias: float32 [B, k] and [B].
        negative_factors, negative_bias: float32 [S, k] and [S].
    """

    loss: float
    query: Floats
    target_factors: Floats
    target_bias: Floats
    negative_factors: Floats
    negative_bias: Floats


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

    Source:
        Bengio and Senecal 2008, "Adaptive importance sampling", for the logit correction; Rendle 2010, eq. 1, for y.
    """
    factors_n, factors_t = item_factors[negative], item_factors[target]
    logits = query @ factors_n.T
    logits += item_bias[negative] - correction[negative]
    logits[target[:, None] == negative[None, :]] = -np.inf
    own = np.einsum("bk,bk->b", query, factors_t) + item_bias[target]
    top = np.maximum(logits.max(axis=1), own)
    logits -= top[:, None]
    share = np.exp(logits, out=logits)
    own_share = np.exp(own - top)
    total = share.sum(axis=1) + own_share
    loss = float(np.dot(weight, np.log(total) + top - own))
    share *= (weight / total)[:, None]
    pull = weight * (own_share / total - np.float32(1.0))
    grad_query = share @ factors_n
    grad_query += pull[:, None] * factors_t
    return SoftmaxGradient(
        loss, grad_query, pull[:, None] * query, pull, np.ascontiguousarray(share.T) @ query, share.sum(axis=0)
    )
