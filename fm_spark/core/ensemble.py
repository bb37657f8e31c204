"""Several machines as one: the sums of their rounds in one row space, and the machine whose score is their mean.

With M machines of k factors, v = [v_1, ..., v_M] / sqrt(M) side by side gives <v_i, v_j> = mean_m <v_mi, v_mj> for
every pair of features, and mean weights give mean linear terms. So pairs among an item's own features, bags and user
rows all come out as means, and the score of the one machine with M k factors is the mean of the M scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fm_spark.core.combine import MoveSum, RowSum
from fm_spark.core.parameters import Floats


def mean_factors(members: Sequence[Floats]) -> Floats:
    """The factors of the one machine, float32 [n, M k]; ``members``: float32 [n, k] each."""
    return np.concatenate(members, axis=1) * np.float32(len(members) ** -0.5)


def mean_weights(members: Sequence[npt.NDArray[np.floating]]) -> Floats:
    """The linear weights of the one machine, float32 [n]."""
    weights: Floats = np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32)
    return weights


def factors_of_members(factors: Floats, n_members: int) -> list[Floats]:
    """The members' factors whose :func:`mean_factors` are ``factors`` (float32 [n, M k])."""
    scaled = factors * np.float32(n_members**0.5)
    return [np.ascontiguousarray(part) for part in np.split(scaled, n_members, axis=1)]


def stacked(sums: Sequence[MoveSum], n_rows: int, n_biases: int) -> MoveSum:
    """The members' sums of a block as one: member m has the rows from m * n_rows and the biases from m * n_biases on.

    Loss and events are the members' means, cut to the grid, so that they count an event once.
    """
    return MoveSum(
        _stacked_rows([one.factors for one in sums], n_rows),
        _stacked_rows([one.bias for one in sums], n_biases),
        sum(one.loss for one in sums) // len(sums),
        sum(one.events for one in sums) // len(sums),
        sum(one.seconds for one in sums),
    )


def unstacked(total: MoveSum, n_members: int, n_rows: int, n_biases: int) -> list[MoveSum]:
    """The members' parts of a sum of :func:`stacked` ones; loss and events are those of all."""
    factors = _unstacked_rows(total.factors, n_members, n_rows)
    biases = _unstacked_rows(total.bias, n_members, n_biases)
    return [total._replace(factors=one, bias=bias) for one, bias in zip(factors, biases, strict=True)]


def _stacked_rows(parts: Sequence[RowSum], n_rows: int) -> RowSum:
    places = [(part.rows + member * n_rows).astype(np.int32) for member, part in enumerate(parts)]
    return RowSum(
        np.concatenate(places),
        np.concatenate([part.move for part in parts]),
        np.concatenate([part.state for part in parts]),
        np.concatenate([part.root for part in parts]),
        np.concatenate([part.blocks for part in parts]),
    )


def _unstacked_rows(total: RowSum, n_members: int, n_rows: int) -> list[RowSum]:
    edges = np.searchsorted(total.rows, np.arange(n_members + 1) * n_rows)
    parts = []
    for member in range(n_members):
        own = slice(edges[member], edges[member + 1])
        rows = (total.rows[own] - member * n_rows).astype(np.int32)
        parts.append(RowSum(rows, total.move[own], total.state[own], total.root[own], total.blocks[own]))
    return parts
