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
    x = side.x[moved].astype(np.float64)
    gram = (x.T @ x).toarray() + np.eye(x.shape[1])
    learnt = np.linalg.solve(gram, x.T @ move[moved].astype(np.float64)).astype(np.float32)
    side.factors[:] += learnt[:, :-1]
    side.bias[:] += learnt[:, -1]
    follow = side.x[~moved] @ learnt
    parameters.item_factors[~moved] += follow[:, :-1]
    parameters.bias[~moved] += follow[:, -1]


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
