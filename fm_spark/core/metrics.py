"""Ranking metrics: how high the held-out items of a user stand in his ranking.

All metrics have binary relevance. A user without held-out items ("truth") has no value (NaN) and is not counted; a
held-out item that is hidden from the ranking (seen in training, not allowed) counts as missed. Means over users are
made from integer sums, so that any grouping and order of users gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import metric_kernels as kernels
from fm_spark.core.item_scores import (
    USER_TILE,
    DoubleArray,
    FloatArray,
    IntArray,
    Items,
    UserItems,
    rounding_error,
    score_tiles,
)
from fm_spark.core.topk import top_n

Hits = npt.NDArray[np.bool_]

METRICS = ("ndcg_at_10", "recall_at_20", "precision_at_10", "map_at_10", "mrr", "hit_rate_at_10")
COVERAGE = "coverage_at_10"
_LIST = 20
_COVERAGE_AT = 10
# sums are counted in units of 2^-32: a mean is off by at most 1.2e-10, and int64 holds 2^31 users
_UNIT = 2.0**32


def ndcg(hits: Hits, truth_size: IntArray, k: int) -> DoubleArray:
    """NDCG@k: sum of 1 / log2(rank + 1) over the hits in the first k, over the same for an ideal list.

    The ideal list has min(k, truth_size) hits at its top.

    Args:
        hits: bool [n_users, at least k], whether the item of each rank is held out.
        truth_size: int64 [n_users], number of held-out items; 0 gives NaN.
        k: length of the list.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation (2002), with the discount log2(rank + 1).
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])
    return _per_user((hits[:, :k] * discount).sum(axis=1) / ideal[np.minimum(truth_size, k)])


def recall(hits: Hits, truth_size: IntArray, k: int) -> DoubleArray:
    """Recall@k: hits in the first k over min(k, truth_size), so that 1 can be reached; arguments as in :func:`ndcg`."""
    return _per_user(hits[:, :k].sum(axis=1) / _divisor(np.minimum(truth_size, k)))


def precision(hits: Hits, truth_size: IntArray, k: int) -> DoubleArray:
    """Precision@k: hits in the first k over k, also when fewer items are held out; arguments as for :func:`ndcg`."""
    return _per_user(hits[:, :k].sum(axis=1) / _divisor(np.where(truth_size > 0, k, 0)))


def average_precision(hits: Hits, truth_size: IntArray, k: int) -> DoubleArray:
    """Average precision@k: sum of precision@r over the ranks r <= k that hit, over min(k, truth_size).

    Its mean over users is MAP@k. Arguments as for :func:`ndcg`.
    """
    at = hits[:, :k].cumsum(axis=1) / np.arange(1, k + 1)
    return _per_user((at * hits[:, :k]).sum(axis=1) / _divisor(np.minimum(truth_size, k)))


def hit_rate(hits: Hits, truth_size: IntArray, k: int) -> DoubleArray:
    """Hit rate@k: 1 when at least one of the first k is held out, else 0; arguments as for :func:`ndcg`."""
    return _per_user(hits[:, :k].any(axis=1) / _divisor(np.where(truth_size > 0, 1, 0)))


def reciprocal_rank(first_rank: IntArray, truth_size: IntArray) -> DoubleArray:
    """1 / rank of the best held-out item in the full ranking; 0 when the ranking holds none of them.

    Args:
        first_rank: int64 [n_users], from 1; 0 for none.
        truth_size: int64 [n_users]; 0 gives NaN.
    """
    value = np.where(first_rank > 0, 1.0 / np.maximum(first_rank, 1), 0.0)
    return _per_user(np.where(truth_size > 0, value, np.nan))


class UserMetrics(NamedTuple):
    """The metrics of each user of a block.

    Attributes:
        value: float64 [n_users, len(METRICS)], columns as in :data:`METRICS`; NaN for users without truth.
        covered: bool [n_items], items that stand in the first ten of some user with truth.
    """

    value: DoubleArray
    covered: Hits


class MetricSums(NamedTuple):
    """What blocks of users add up to; exact integers, so merging is associative and commutative to the bit.

    Attributes:
        sums: int64 [len(METRICS)], sums over users in units of 2^-32.
        users: users with truth.
        users_without_truth: users that are not counted.
        covered: bool [n_items], items that stand in some list of ten.
    """

    sums: IntArray
    users: int
    users_without_truth: int
    covered: Hits

    def merge(self, other: MetricSums) -> MetricSums:
        """The sums over the users of both."""
        return MetricSums(
            self.sums + other.sums,
            self.users + other.users,
            self.users_without_truth + other.users_without_truth,
            self.covered | other.covered,
        )

    def means(self) -> dict[str, float]:
        """Mean over users of every metric, and the share of all items that stand in some list of ten (coverage).

        Without any user the means are NaN; without items the coverage is.
        """
        means = {
            name: float(s) / _UNIT / self.users if self.users else np.nan
            for name, s in zip(METRICS, self.sums, strict=True)
        }
        means[COVERAGE] = float(self.covered.mean()) if len(self.covered) else np.nan
        return means


def no_users(n_items: int) -> MetricSums:
    """The sums over nobody, where merging starts."""
    return MetricSums(np.zeros(len(METRICS), np.int64), 0, 0, np.zeros(n_items, np.bool_))


def rank_metrics(items: Items, queries: FloatArray, seen: UserItems, truth: UserItems) -> MetricSums:
    """Ranks all allowed items that a user has not seen and sums the metrics over the users.

    Args:
        items: from :func:`fm_spark.core.item_scores.prepare_items`.
        queries: float32 [n_users, k].
        seen: items left out of each user's ranking.
        truth: held-out items of each user.
    """
    values = user_metrics(items, queries, seen, truth)
    counted = ~np.isnan(values.value[:, 0])
    sums = np.rint(values.value[counted] * _UNIT).astype(np.int64).sum(axis=0)
    users = int(np.count_nonzero(counted))
    return MetricSums(sums, users, len(counted) - users, values.covered)


def user_metrics(items: Items, queries: FloatArray, seen: UserItems, truth: UserItems) -> UserMetrics:
    """The metrics of each user; arguments as for :func:`rank_metrics`."""
    rows = np.flatnonzero(np.diff(truth.ptr) > 0)
    value = np.full((len(queries), len(METRICS)), np.nan)
    covered = np.zeros(items.n_items, dtype=np.bool_)
    if len(rows) == 0:
        return UserMetrics(value, covered)
    q = np.ascontiguousarray(queries[rows], dtype=np.float32)
    seen, truth = _take(seen, rows), _take(truth, rows)
    size = np.diff(truth.ptr)
    best = top_n(items, q, _LIST, seen).item
    hits = kernels.hits(best, truth.ptr, truth.items)
    value[rows] = np.column_stack(
        [
            ndcg(hits, size, 10),
            recall(hits, size, 20),
            precision(hits, size, 10),
            average_precision(hits, size, 10),
            reciprocal_rank(_first_ranks(items, q, seen, truth, hits), size),
            hit_rate(hits, size, 10),
        ]
    )
    listed = best[:, :_COVERAGE_AT]
    covered[listed[listed >= 0]] = True
    return UserMetrics(value, covered)


def _first_ranks(items: Items, queries: FloatArray, seen: UserItems, truth: UserItems, hits: Hits) -> IntArray:
    """Rank of each user's best held-out item, 0 for none; only users whose list missed have their rank counted out."""
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0).astype(np.int64)
    rows = np.flatnonzero(ranks == 0)
    if len(rows) == 0:
        return ranks
    q, seen, truth = queries[rows], _take(seen, rows), _take(truth, rows)
    target, score = kernels.best_items(items.factors, items.bias, q, seen.ptr, seen.items, truth.ptr, truth.items)
    error = rounding_error(items, q)
    better = np.zeros(len(rows), dtype=np.int64)
    for first in range(0, len(rows), USER_TILE):
        part = slice(first, min(first + USER_TILE, len(rows)))
        low, high = _float32_below(score[part] - error[part]), -_float32_below(-(score[part] + error[part]))
        for start, tile in score_tiles(items, q, seen, part.start, part.stop):
            kernels.count_better(
                tile, start, items.factors, items.bias, q[part], target[part], score[part], low, high, better[part]
            )
    ranks[rows] = np.where(target >= 0, better + 1, 0)
    return ranks


def _float32_below(value: DoubleArray) -> FloatArray:
    """The largest float32 that is not above the value."""
    near = value.astype(np.float32)
    return np.where(near.astype(np.float64) > value, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _take(sets: UserItems, rows: IntArray) -> UserItems:
    """The sets of some users."""
    counts = np.diff(sets.ptr)[rows]
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    place = np.arange(ptr[-1]) + np.repeat(sets.ptr[rows] - ptr[:-1], counts)
    return UserItems(ptr, sets.items[place])


def _divisor(size: npt.NDArray[np.int64]) -> DoubleArray:
    return np.where(size > 0, size, np.nan).astype(np.float64)


def _per_user(value: npt.NDArray[np.float64]) -> DoubleArray:
    return value.astype(np.float64)
