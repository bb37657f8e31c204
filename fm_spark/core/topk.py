"""Exact top-N of ``item_bias + queries @ item_factors.T`` for a block of users, in bounded memory.

Selection runs in float32 (BLAS on a tile of users x items that stays in cache), the answer is that of float64:
each user keeps :data:`MARGIN` candidates more than he needs, they are scored again in float64, and the list is accepted
only if no item left out can reach the cut even with the largest possible float32 rounding error. Otherwise (ties or
near-ties across the cut) the user is scanned once more with the cut lowered by that error. So lists equal those of
sorting every float64 score by (score descending, item index ascending).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import topk_kernels as kernels
from fm_spark.core.item_scores import (
    ITEM_TILE,
    USER_TILE,
    DoubleArray,
    FloatArray,
    IntArray,
    ItemArray,
    Items,
    UserItems,
    checked_queries,
    rounding_error,
    row_norms,
    score_pairs,
    tile_product,
)

MARGIN = 16


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
    norms = row_norms(items.factors)
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
    q, seen = checked_queries(items, queries, seen)
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
    q, more = checked_queries(items, queries, more)
    item, score = best.item.copy(), np.where(best.item >= 0, best.score, -np.inf)
    for user in np.flatnonzero(np.diff(more.ptr)):
        own = more.items[more.ptr[user] : more.ptr[user + 1]]
        both = np.concatenate([best.item[user], own[np.isfinite(items.bias[own])]])[None, :]
        scores = score_pairs(items, q[user : user + 1], both)
        (item[user],), (score[user],) = _ordered(both, scores, item.shape[1])
    size = np.count_nonzero(item >= 0, axis=1)
    score[item < 0] = np.nan
    return TopN(item, score, size)


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
        norm = row_norms(q)
        cursor, stop = seen.ptr[:-1][own].copy(), seen.ptr[1:][own]
        fill = np.zeros(len(q), dtype=np.int64)
        for number, start in enumerate(range(0, items.n_items, ITEM_TILE)):
            best = ordered.tile_bias[number] + ordered.tile_norm[number] * norm + error[own]
            rows = np.flatnonzero(best > bar)
            if not len(rows):
                continue
            asked = q if len(rows) == len(q) else q[rows]
            tile = tile_product(asked, items.factors[start : start + ITEM_TILE], buffer)
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
