"""Side features of items (genres, ...): composed into item rows before training, taken apart again afterwards.

An item is the row [s_a ; L_a + P_a] with s_a = sum_j v_j x_j, L_a = sum_j w_j x_j and the interactions among its own
features P_a = 1/2 (|s_a|^2 - sum_j |v_j x_j|^2)   (Rendle 2010, eq. 1, restricted to the item side).

Blocks train composed rows and never see the side features. After a round the move D of the composed rows is split
between the item's own row and the side features as the smallest change of both that adds up to it,
    min |D - X V|^2 + |V|^2,    V = (X'X + I)^-1 X'D,
so that items which were not in the round (cold ones too) follow the features they share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fm_spark.core.parameters import Floats, Parameters

# up to so many side features their products with each other are a matrix (32 MB) that is solved in under a second
_DENSE = 2_000
_STEPS, _PRECISION = 50, 1e-3


class SideFeatures(NamedTuple):
    """Which item has which side feature, and what is learnt about them.

    Attributes:
        x: float32 CSR [n_items, n_side], feature values.
        factors: float32 [n_side, k], v of the side features.
        bias: float32 [n_side], w of the side features.
    """

    x: sparse.csr_matrix
    factors: Floats
    bias: Floats


def no_progress(x: sparse.csr_matrix, k: int) -> SideFeatures:
    """Side features that have learnt nothing yet: zero vectors."""
    return SideFeatures(x, np.zeros((x.shape[1], k), np.float32), np.zeros(x.shape[1], np.float32))


def share_move(side: SideFeatures, parameters: Parameters, before: Floats, before_bias: Floats) -> None:
    """Splits the last move of the item rows and lets the untouched rows follow; changes both arguments in place.

    Args:
        before: float32 [n_items, k], composed item rows before the round; ``before_bias``: float32 [n_items].
    """
    move = np.concatenate([parameters.item_factors - before, (parameters.bias - before_bias)[:, None]], axis=1)
    moved = np.any(move != 0.0, axis=1)
    learnt = _ridge(side.x[moved].astype(np.float64), move[moved].astype(np.float64)).astype(np.float32)
    side.factors[:] += learnt[:, :-1]
    side.bias[:] += learnt[:, -1]
    follow = side.x[~moved] @ learnt
    parameters.item_factors[~moved] += follow[:, :-1]
    parameters.bias[~moved] += follow[:, -1]


def _ridge(x: sparse.csr_matrix, move: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(X'X + I)^-1 X'D, float64 [n_side, k + 1]; with very many features near enough, see below."""
    pull = x.T @ move
    if x.shape[1] <= _DENSE:
        solved: npt.NDArray[np.float64] = np.linalg.solve((x.T @ x).toarray() + np.eye(x.shape[1]), pull)
        return solved
    return _conjugate_gradients(x, pull)


def _conjugate_gradients(x: sparse.csr_matrix, pull: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Solves (X'X + I) V = pull, all columns side by side, to a thousandth or in :data:`_STEPS` steps.

    What the side features miss of a move stays in the items' own rows, so that no precision is lost on the whole.

    Source: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952, section 3.
    """
    found, rest = np.zeros_like(pull), pull.copy()
    direction, size = rest.copy(), np.square(rest).sum(axis=0)
    enough = size * _PRECISION**2
    for _ in range(_STEPS):
        if np.all(size <= enough):
            break
        image = x.T @ (x @ direction) + direction
        curvature = (direction * image).sum(axis=0)
        step = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0.0)
        found += step * direction
        rest -= step * image
        before, size = size, np.square(rest).sum(axis=0)
        direction = rest + np.divide(size, before, out=np.zeros_like(size), where=before > 0.0) * direction
    return found


def own_rows(side: SideFeatures, item_factors: Floats, item_bias: Floats) -> tuple[Floats, npt.NDArray[np.float64]]:
    """The items' own v (float32 [n_items, k]) and w (float64 [n_items]) whose composition is the given rows."""
    own = (item_factors - side.x @ side.factors).astype(np.float32)
    _, offset = compose(side, own, np.zeros(len(item_bias)))
    return own, item_bias.astype(np.float64) - offset


def compose(
    side: SideFeatures, own_factors: Floats, own_bias: npt.NDArray[np.float64]
) -> tuple[Floats, npt.NDArray[np.float64]]:
    """Item rows of the full machine: s_a (float32 [n_items, k]) and L_a + P_a (float64 [n_items])."""
    shared = side.x.astype(np.float64) @ side.factors.astype(np.float64)
    total = own_factors.astype(np.float64) + shared
    squares = np.square(own_factors.astype(np.float64)).sum(axis=1)
    squares += side.x.power(2).astype(np.float64) @ np.square(side.factors.astype(np.float64)).sum(axis=1)
    interactions = 0.5 * (np.square(total).sum(axis=1) - squares)
    linear = own_bias + side.x.astype(np.float64) @ side.bias.astype(np.float64)
    return total.astype(np.float32), linear + interactions
