"""Exact top-N of ``item_bias + queries @ item_factors.T`` for a block of users, in bounded memory.

Selection runs in float32 (BLAS on a tile of users x items that stays in cache), the answer is that of float64:
each user keeps :data:`MARGIN` candidates more than he needs, they are scored again in float64, and the list is accepted
only if no item left out can reach the cut even with the largest possible float32 rounding error. Otherwise (ties or
near-ties across the cut) the user is scanned once more with the cut lowered by that error. So lists equal those of
sorting every float64 score by (score descending, item index ascending).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import topk_kernels as kernels
from fm_spark.errors import DivergenceError

IntArray = npt.NDArray[np.int64]
ItemArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

# 256 users x 1,024 items in float32 are 1 MiB, one core's L2; with fewer users BLAS spends its time repacking items
USER_TILE = 256
ITEM_TILE = 1024
MARGIN = 16
_FLOAT32_UNIT = 2.0**-24
_FLOAT32_TINY = 2.0**-126
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Items(NamedTuple):
    """The item side, checked and laid out for scoring; made by :func:`prepare_items`.

    Attributes:
        factors: float32 [n_items, k], contiguous.
        bias: float32 [n_items]; minus infinity for an item that must not be recommended.
        max_norm: largest Euclidean norm of a row of ``factors``.
        max_bias: largest absolute bias of an item that may be recommended.
    """

    factors: FloatArray
    bias: FloatArray
    max_norm: float
    max_bias: float

    @property
    def n_items(self) -> int:
        """Number of items, also those that must not be recommended."""
        return len(self.bias)


class UserItems(NamedTuple):
    """A set of items for each user: ``items[ptr[u]:ptr[u + 1]]``, item indices in ascending order.

    Attributes:
        ptr: int64 [n_users + 1].
        items: int32 [n_pairs].
    """

    ptr: IntArray
    items: ItemArray


class TopN(NamedTuple):
    """The best items of a block of users, best first.

    Attributes:
        item: int32 [n_users, n], item indices; -1 after the end of a list.
        score: float64 [n_users, n]; NaN after the end of a list.
        size: int64 [n_users], length of each list; less than n when fewer items are left for the user.
    """

    item: ItemArray
    score: DoubleArray
    size: IntArray


class Sorted(NamedTuple):
    """The same items, promising ones first: most users need not look at the tiles behind those.

    Attributes:
        items: the items in that order.
        item: int32 [n_items], which item each of them is; place: int32 [n_items], where each item is.
        tile_bias, tile_norm: float64 [n_tiles], the greatest bias and the greatest norm in each tile of
            :data:`ITEM_TILE` items.
    """

    items: Items
    item: ItemArray
    place: ItemArray
    tile_bias: DoubleArray
    tile_norm: DoubleArray


def sort_items(items: Items, reach: float = 0.0) -> Sorted:
    """Sorts the items by ``bias + reach * norm`` for :func:`top_n`; a copy, made once for many blocks of users.

    Args:
        reach: about the Euclidean norm of the queries. The lists do not depend on it, the time does.
    """
    norms = _norms(items.factors)
    item = np.argsort(-(items.bias + reach * norms), kind="stable").astype(np.int32)
    place = np.empty_like(item)
    place[item] = np.arange(len(item), dtype=np.int32)
    ordered = items._replace(factors=items.factors[item], bias=items.bias[item])
    starts = np.arange(0, max(1, len(item)), ITEM_TILE)
    tile_bias, tile_norm = _greatest(ordered.bias, starts), _greatest(norms[item], starts)
    return Sorted(ordered, item, place, tile_bias, tile_norm)


def _greatest(values: FloatArray | DoubleArray, starts: IntArray) -> DoubleArray:
    """Of each part; minus infinity of no values."""
    return np.maximum.reduceat(np.append(values, -np.inf), starts).astype(np.float64)


def prepare_items(
    item_factors: npt.ArrayLike, item_bias: npt.ArrayLike, allowed: npt.NDArray[np.bool_] | None = None
) -> Items:
    """Checks the item side and lays it out for scoring.

    Args:
        item_factors: [n_items, k], used as float32.
        item_bias: [n_items], used as float32.
        allowed: bool [n_items], the items that may be recommended; ``None`` allows all.

    Raises:
        DivergenceError: a factor or a bias is not finite.
    """
    factors = np.ascontiguousarray(item_factors, dtype=np.float32)
    bias = np.array(item_bias, dtype=np.float32)
    finite = np.isfinite(bias) & np.isfinite(factors).all(axis=1)
    if not finite.all():
        raise DivergenceError(
            f"{np.count_nonzero(~finite)} of {len(bias)} items have parameters that are not finite, first the item of "
            f"index {int(np.argmin(finite))}; train again with a smaller train.learning_rate"
        )
    if allowed is not None:
        bias[~allowed] = -np.inf
    usable = np.abs(bias[np.isfinite(bias)])
    return Items(factors, bias, float(_norms(factors).max(initial=0.0)), float(usable.max(initial=0.0)))


def user_items(ptr: IntArray, items: ItemArray, keep: npt.NDArray[np.bool_] | None = None) -> UserItems:
    """The items of each user's events, sorted.

    Args:
        ptr: int64 [n_users + 1], user ``u`` owns ``items[ptr[u]:ptr[u + 1]]``.
        items: int32 [n_events], in any order.
        keep: bool [n_events], the events that count; ``None`` keeps all.
    """
    user = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    if keep is not None:
        user, items = user[keep], items[keep]
    counts = np.bincount(user, minlength=len(ptr) - 1)
    starts, ordered = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.array(items, dtype=np.int32)
    kernels.sort_within(starts, ordered)
    return UserItems(starts, ordered)


def no_items(n_users: int) -> UserItems:
    """An empty set for every user."""
    return UserItems(np.zeros(n_users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


def top_n(
    items: Items, queries: npt.ArrayLike, n: int, seen: UserItems | None = None, ordered: Sorted | None = None
) -> TopN:
    """The ``n`` best items of every query, exactly, by (float64 score descending, item index ascending).

    A user for whom fewer than ``n`` items are left gets a shorter list, one who has seen everything an empty one.

    Args:
        items: from :func:`prepare_items`.
        queries: [n_users, k], used as float32.
        n: length of the lists, at least 1.
        seen: what to leave out; ``None`` leaves nothing out.
        ordered: from :func:`sort_items`; the lists are the same with and without it.

    Raises:
        ValueError: n < 1, shapes that do not fit, or ``seen`` not in ascending order within a user.
        DivergenceError: a query is not finite, or its scores would leave the range of float32.
    """
    if n < 1:
        raise ValueError(f"n = {n} must be at least 1")
    q, seen = _checked(items, queries, seen)
    error = rounding_error(items, q)
    kept = min(n + MARGIN, items.n_items)
    ordered = sort_items(items) if ordered is None else ordered
    candidates, threshold = _candidates(ordered, q, _moved(seen, ordered.place), kept, error)
    candidates = np.append(ordered.item, np.int32(-1))[candidates]
    item, score = _ordered(candidates, score_pairs(items, q, candidates), n)
    doubtful = (threshold > -np.inf) & (score[:, n - 1] <= threshold + error)
    for user in np.flatnonzero(doubtful):
        cut = float(score[user, n - 1] - error[user])
        item[user], score[user] = _rescan(items, q, seen, int(user), cut, n)
    size = np.count_nonzero(item >= 0, axis=1)
    score[item < 0] = np.nan
    return TopN(item, score, size)


def with_more(items: Items, queries: npt.ArrayLike, best: TopN, more: UserItems) -> TopN:
    """Lists out of ``best`` and a few more items of each user, in the same order and no longer.

    Args:
        items, queries: as for :func:`top_n`.
        best: lists of the same users.
        more: items that are not in the lists; one of bias minus infinity stays out.
    """
    q, more = _checked(items, queries, more)
    item, score = best.item.copy(), np.where(best.item >= 0, best.score, -np.inf)
    for user in np.flatnonzero(np.diff(more.ptr)):
        own = more.items[more.ptr[user] : more.ptr[user + 1]]
        both = np.concatenate([best.item[user], own[np.isfinite(items.bias[own])]])[None, :]
        scores = score_pairs(items, q[user : user + 1], both)
        (item[user],), (score[user],) = _ordered(both, scores, item.shape[1])
    size = np.count_nonzero(item >= 0, axis=1)
    score[item < 0] = np.nan
    return TopN(item, score, size)


def restrict(items: Items, allowed: npt.NDArray[np.bool_]) -> Items:
    """The items of which only ``allowed`` (bool [n_items]) may be recommended; shares the factors."""
    bias = np.where(allowed, items.bias, np.float32(-np.inf))
    usable = np.abs(bias[np.isfinite(bias)])
    return items._replace(bias=bias, max_bias=float(usable.max(initial=0.0)))


def rounding_error(items: Items, queries: FloatArray) -> DoubleArray:
    """Bound on |float32 score - float64 score| for every user, whatever the order of summation; float64 [n_users].

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), eq. 3.5, with Cauchy-Schwarz.

    Raises:
        DivergenceError: a query is not finite or its scores may exceed float32.
    """
    size = _norms(queries) * items.max_norm + items.max_bias
    bad = ~(size < _FLOAT32_MAX)
    if bad.any():
        raise DivergenceError(
            f"the scores of {np.count_nonzero(bad)} of {len(bad)} users are not finite, first the user of index "
            f"{int(np.argmax(bad))} of the block; train again with a smaller train.learning_rate"
        )
    terms = (items.factors.shape[1] + 3) * _FLOAT32_UNIT
    bound: DoubleArray = terms / (1.0 - terms) * size + items.factors.shape[1] * _FLOAT32_TINY
    return bound


def score_tiles(
    items: Items, queries: FloatArray, seen: UserItems, first: int, last: int
) -> Iterator[tuple[int, FloatArray]]:
    """Yields (first item, float32 scores [users, items] without bias) for the users ``first:last``, seen items at -inf.

    All tiles share one buffer: a tile is gone when the next one comes.
    """
    buffer = np.empty((last - first) * ITEM_TILE, dtype=np.float32)
    rows = np.arange(last - first)
    cursor = seen.ptr[first:last].copy()
    stop = seen.ptr[first + 1 : last + 1]
    for start in range(0, items.n_items, ITEM_TILE):
        tile = _product(queries[first:last], items.factors[start : start + ITEM_TILE], buffer)
        kernels.mask(tile, rows, start, cursor, stop, seen.items)
        yield start, tile


def _norms(vectors: FloatArray) -> DoubleArray:
    """The Euclidean norms of rows, in float64 without a copy of the rows in float64."""
    norms: DoubleArray = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def _product(queries: FloatArray, factors: FloatArray, buffer: FloatArray) -> FloatArray:
    tile = buffer[: len(queries) * len(factors)].reshape(len(queries), len(factors))
    np.matmul(queries, factors.T, out=tile)
    return tile


def score_pairs(items: Items, queries: FloatArray, item: ItemArray) -> DoubleArray:
    """The float64 scores that lists are ordered by: ``<query, factors[i]> + bias[i]``, summed from the first factor on.

    Args:
        items: from :func:`prepare_items`.
        queries: float32 [n_users, k].
        item: int32 [n_users, m]; -1 gives minus infinity.
    """
    out = np.empty(item.shape, dtype=np.float64)
    kernels.score_pairs(items.factors, items.bias, queries, item, out)
    return out


def _checked(items: Items, queries: npt.ArrayLike, seen: UserItems | None) -> tuple[FloatArray, UserItems]:
    q = np.ascontiguousarray(queries, dtype=np.float32)
    if q.ndim != 2 or q.shape[1] != items.factors.shape[1]:
        raise ValueError(f"queries of shape {q.shape} do not fit item factors of shape {items.factors.shape}")
    if seen is None:
        return q, no_items(len(q))
    if len(seen.ptr) != len(q) + 1 or not kernels.is_ascending(seen.ptr, seen.items, items.n_items):
        raise ValueError(f"seen must hold {len(q)} users with ascending items below {items.n_items}; see user_items()")
    return q, seen


def _candidates(
    ordered: Sorted, queries: FloatArray, seen: UserItems, kept: int, error: DoubleArray
) -> tuple[ItemArray, FloatArray]:
    """The ``kept`` best places of each user by float32 score in any order (-1 pads), and a bound on all others.

    A tile is scored for the users who may find something in it: no score in it exceeds the tile's greatest bias + its
    greatest norm x that of the query, by Cauchy-Schwarz, and a float32 one that and ``error``.
    """
    items = ordered.items
    candidates = np.full((len(queries), kept), -1, dtype=np.int32)
    threshold = np.full(len(queries), -np.inf, dtype=np.float32)
    room = 2 * kept + kernels.CHUNK + 1
    score = np.empty((USER_TILE, room), dtype=np.float32)
    item = np.empty((USER_TILE, room), dtype=np.int32)
    buffer = np.empty(USER_TILE * ITEM_TILE, dtype=np.float32)
    for first in range(0, len(queries), USER_TILE):
        own = slice(first, min(first + USER_TILE, len(queries)))
        q, bar = queries[own], threshold[own]
        norm = _norms(q)
        cursor, stop = seen.ptr[:-1][own].copy(), seen.ptr[1:][own]
        fill = np.zeros(len(q), dtype=np.int64)
        for number, start in enumerate(range(0, items.n_items, ITEM_TILE)):
            best = ordered.tile_bias[number] + ordered.tile_norm[number] * norm + error[own]
            rows = np.flatnonzero(best > bar)
            if not len(rows):
                continue
            asked = q if len(rows) == len(q) else q[rows]
            tile = _product(asked, items.factors[start : start + ITEM_TILE], buffer)
            kernels.mask(tile, rows, start, cursor, stop, seen.items)
            bias = items.bias[start : start + tile.shape[1]]
            kernels.select(tile, rows, bias, start, kept, score, item, fill, bar)
        kernels.finish(score, item, fill, bar, candidates[own])
    return candidates, threshold


def _moved(seen: UserItems, place: ItemArray) -> UserItems:
    """The same sets by the places of the items."""
    items = place[seen.items]
    kernels.sort_within(seen.ptr, items)
    return UserItems(seen.ptr, items)


def _ordered(item: ItemArray, score: DoubleArray, n: int) -> tuple[ItemArray, DoubleArray]:
    """The first ``n`` of each row by (score descending, item ascending), padded to width ``n`` with (-1, -inf)."""
    order = np.lexsort((item, -score), axis=1)[:, :n]
    wide = ((0, 0), (0, max(0, n - order.shape[1])))
    item = np.pad(np.take_along_axis(item, order, axis=1), wide, constant_values=-1)
    score = np.pad(np.take_along_axis(score, order, axis=1), wide, constant_values=-np.inf)
    return item, score


def _rescan(
    items: Items, queries: FloatArray, seen: UserItems, user: int, cut: float, n: int
) -> tuple[ItemArray, DoubleArray]:
    """The list of one user from all items whose float32 score reaches ``cut``."""
    query = queries[user : user + 1]
    scores = (items.factors @ query[0] + items.bias).astype(np.float64)
    scores[seen.items[seen.ptr[user] : seen.ptr[user + 1]]] = -np.inf
    candidates = np.flatnonzero((scores >= cut) & (scores > -np.inf)).astype(np.int32)[None, :]
    item, score = _ordered(candidates, score_pairs(items, query, candidates), n)
    return item[0], score[0]
