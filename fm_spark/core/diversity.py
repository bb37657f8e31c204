"""Lists that do not say the same thing a hundred times: greedy maximal marginal relevance over item vectors."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from fm_spark.core.item_scores import DoubleArray, FloatArray, ItemArray
from fm_spark.core.topk import TopN

POOL = 5
"""Candidates for each place of a list."""


class Diverse(NamedTuple):
    """Re-ranked lists.

    Attributes:
        lists: the chosen items in the order in which they were chosen, each with the score that it had.
        cost: float64 [n_users, n], the score at this rank before minus the score at it now; NaN after the end.
    """

    lists: TopN
    cost: DoubleArray


def unit_vectors(factors: FloatArray) -> FloatArray:
    """The rows (float32 [n_items, k]) at length 1; a row of zeros stays one, and is like no other."""
    norm = np.linalg.norm(factors.astype(np.float64), axis=1, keepdims=True)
    return (factors / np.where(norm > 0, norm, 1.0)).astype(np.float32)


def diversify(pool: TopN, vectors: FloatArray, share: float, n: int) -> Diverse:
    """Chooses ``n`` of each user's candidates, one after the other, always the one of the largest

        (1 - share) (score - least) / (most - least)  -  share max over the chosen of cos(item, chosen)

    with the least and the most score of his candidates; of equals the one that stood first. The first is always the
    best.

    Args:
        pool: the candidates, best first; fewer than ``n`` are all chosen.
        vectors: float32 [n_items, k], from :func:`unit_vectors`.
        share: 0 leaves the order as it is, 1 looks at nothing but differences.

    Source: Carbonell and Goldstein, The use of MMR, diversity-based reranking (1998).
    """
    item, score = pool.item[:, :n].copy(), pool.score[:, :n].copy()
    _choose(pool.item, pool.score, pool.size, vectors, share, item, score)
    return Diverse(TopN(item, score, np.minimum(pool.size, n)), pool.score[:, :n] - score)


@numba.njit(cache=True, nogil=True)
def _choose(
    item: ItemArray,
    score: DoubleArray,
    size: npt.NDArray[np.int64],
    vectors: FloatArray,
    share: float,
    out_item: ItemArray,
    out_score: DoubleArray,
) -> None:
    for user in range(item.shape[0]):
        n = size[user]
        if n == 0:
            continue
        spread = score[user, 0] - score[user, n - 1]
        left = np.ones(n, np.bool_)
        likest = np.full(n, -2.0)
        chosen = 0
        for place in range(min(n, out_item.shape[1])):
            if place > 0:
                best = -np.inf
                for j in range(n):
                    if left[j]:
                        relevance = (score[user, j] - score[user, n - 1]) / spread if spread > 0.0 else 0.0
                        value = (1.0 - share) * relevance - share * likest[j]
                        if value > best:
                            best, chosen = value, j
            left[chosen] = False
            out_item[user, place] = item[user, chosen]
            out_score[user, place] = score[user, chosen]
            last = vectors[item[user, chosen]]
            for j in range(n):
                if left[j]:
                    likest[j] = max(likest[j], _cosine(vectors[item[user, j]], last))


@numba.njit(cache=True, nogil=True)
def _cosine(a: FloatArray, b: FloatArray) -> float:
    total = 0.0
    for f in range(len(a)):
        total += np.float64(a[f]) * np.float64(b[f])
    return total
