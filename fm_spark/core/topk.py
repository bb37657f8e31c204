"""Exact top-N of ``item_bias + queries @ item_factors.T`` for a block of users, in memory that does not grow with users x items.

Selection runs in float32 (BLAS on a tile of users x items that stays in cache), the answer is that of float64:
each user keeps :data:`MARGIN` candidates more than he needs, they are scored again in float64, and the list is accepted
only if no item left out can reach the cut even with the largest possible float32 rounding error. Otherwise (ties or
near-ties across the cut) the user is scanned once more with the cut lowered by that error. So lists equal those of
sorting every float64 score by (score descending, item index ascending).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from fm_spark.errors import DivergenceError

IntArray = npt.NDArray[np.int64]
ItemArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

# 256 users x 1,024 items in float32 are 1 MiB, the size of one core's L2; fewer users make BLAS repack the items too often
USER_TILE = 256
ITEM_TILE = 1024
MARGIN = 16
_CHUNK = 64
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


class Seen(NamedTuple):
    """What each user must not be shown, by user: ``items[ptr[u]:ptr[u + 1]]``, item indices in ascending order.

    Attributes:
        ptr: int64 [n_users + 1].
        items: int32 [n_seen].
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
            f"{np.count_nonzero(~finite)} of {len(bias)} items have a score that is not finite, first the item of index "
            f"{int(np.argmin(finite))}; train again with a smaller train.learning_rate"
        )
    if allowed is not None:
        bias[~allowed] = -np.inf
    usable = np.abs(bias[np.isfinite(bias)])
    norms = np.linalg.norm(factors.astype(np.float64), axis=1)
    return Items(factors, bias, float(norms.max(initial=0.0)), float(usable.max(initial=0.0)))


def seen_items(ptr: IntArray, items: ItemArray, keep: npt.NDArray[np.bool_] | None = None) -> Seen:
    """Sorts the items of each user.

    Args:
        ptr: int64 [n_users + 1], user ``u`` owns ``items[ptr[u]:ptr[u + 1]]``.
        items: int32 [n_events], in any order.
        keep: bool [n_events], the events that count; ``None`` keeps all.
    """
    user = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    if keep is not None:
        user, items = user[keep], items[keep]
    order = np.lexsort((items, user))
    counts = np.bincount(user, minlength=len(ptr) - 1)
    return Seen(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), items[order].astype(np.int32))


def nothing_seen(n_users: int) -> Seen:
    """A :class:`Seen` that hides nothing."""
    return Seen(np.zeros(n_users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


def top_n(items: Items, queries: npt.ArrayLike, n: int, seen: Seen | None = None) -> TopN:
    """The ``n`` best items of every query, exactly, by (float64 score descending, item index ascending).

    A user for whom fewer than ``n`` items are left gets a shorter list, one who has seen everything an empty one.

    Args:
        items: from :func:`prepare_items`.
        queries: [n_users, k], used as float32.
        n: length of the lists, at least 1.
        seen: what to leave out; ``None`` leaves nothing out.

    Raises:
        ValueError: n < 1, shapes that do not fit, or ``seen`` not in ascending order within a user.
        DivergenceError: a query is not finite, or its scores would leave the range of float32.
    """
    if n < 1:
        raise ValueError(f"n = {n} must be at least 1")
    q, seen = _checked(items, queries, seen)
    error = rounding_error(items, q)
    kept = min(n + MARGIN, items.n_items)
    heap_score = np.full((len(q), kept), -np.inf, dtype=np.float32)
    heap_item = np.full((len(q), kept), -1, dtype=np.int32)
    for first, last, start, tile in score_tiles(items, q, seen):
        bias = items.bias[start : start + tile.shape[1]]
        _select(tile, bias, start, heap_score[first:last], heap_item[first:last])
    threshold = heap_score[:, 0].astype(np.float64)
    item, score = _ordered(heap_item, score_pairs(items, q, heap_item), n)
    if n < kept < items.n_items:
        doubtful = (threshold > -np.inf) & (score[:, n - 1] <= threshold + error)
        for user in np.flatnonzero(doubtful):
            cut = float(score[user, n - 1] - error[user])
            item[user], score[user] = _rescan(items, q, seen, int(user), cut, n)
    size = np.count_nonzero(item >= 0, axis=1)
    score[item < 0] = np.nan
    return TopN(item, score, size)


def rounding_error(items: Items, queries: FloatArray) -> DoubleArray:
    """Bound on |float32 score - float64 score| for every user, whatever the order of summation; float64 [n_users].

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), eq. 3.5, with Cauchy-Schwarz.

    Raises:
        DivergenceError: a query is not finite or its scores may exceed float32.
    """
    size = np.linalg.norm(queries.astype(np.float64), axis=1) * items.max_norm + items.max_bias
    bad = ~(size < _FLOAT32_MAX)
    if bad.any():
        raise DivergenceError(
            f"the scores of {np.count_nonzero(bad)} of {len(bad)} users are not finite, first the user of index "
            f"{int(np.argmax(bad))} of the block; train again with a smaller train.learning_rate"
        )
    terms = (items.factors.shape[1] + 3) * _FLOAT32_UNIT
    bound: DoubleArray = terms / (1.0 - terms) * size + items.factors.shape[1] * _FLOAT32_TINY
    return bound


def score_tiles(items: Items, queries: FloatArray, seen: Seen) -> Iterator[tuple[int, int, int, FloatArray]]:
    """Yields (first user, last user + 1, first item, scores without bias), seen items at minus infinity.

    The scores are float32 [users, items] in a buffer that the next tile overwrites.
    """
    buffer = np.empty(USER_TILE * ITEM_TILE, dtype=np.float32)
    for first in range(0, len(queries), USER_TILE):
        block = queries[first : first + USER_TILE]
        cursor = seen.ptr[first : first + len(block)].copy()
        stop = seen.ptr[first + 1 : first + len(block) + 1]
        for start in range(0, items.n_items, ITEM_TILE):
            factors = items.factors[start : start + ITEM_TILE]
            tile = buffer[: len(block) * len(factors)].reshape(len(block), len(factors))
            np.matmul(block, factors.T, out=tile)
            _mask(tile, start, cursor, stop, seen.items)
            yield first, first + len(block), start, tile


def score_pairs(items: Items, queries: FloatArray, item: ItemArray) -> DoubleArray:
    """The float64 scores that lists are ordered by: ``<query, factors[i]> + bias[i]``, summed from the first factor on.

    Args:
        items: from :func:`prepare_items`.
        queries: float32 [n_users, k].
        item: int32 [n_users, m]; -1 gives minus infinity.
    """
    out = np.empty(item.shape, dtype=np.float64)
    _score_pairs(items.factors, items.bias, queries, item, out)
    return out


def _checked(items: Items, queries: npt.ArrayLike, seen: Seen | None) -> tuple[FloatArray, Seen]:
    q = np.ascontiguousarray(queries, dtype=np.float32)
    if q.ndim != 2 or q.shape[1] != items.factors.shape[1]:
        raise ValueError(f"queries of shape {q.shape} do not fit item factors of shape {items.factors.shape}")
    if seen is None:
        return q, nothing_seen(len(q))
    if len(seen.ptr) != len(q) + 1 or not _is_ascending(seen.ptr, seen.items, items.n_items):
        raise ValueError(f"seen needs {len(q)} users with ascending item indices below {items.n_items}; see seen_items()")
    return q, seen


def _ordered(item: ItemArray, score: DoubleArray, n: int) -> tuple[ItemArray, DoubleArray]:
    """The first ``n`` of each row by (score descending, item ascending), padded to width ``n`` with (-1, -inf)."""
    order = np.lexsort((item, -score), axis=1)[:, :n]
    wide = ((0, 0), (0, max(0, n - order.shape[1])))
    item = np.pad(np.take_along_axis(item, order, axis=1), wide, constant_values=-1)
    score = np.pad(np.take_along_axis(score, order, axis=1), wide, constant_values=-np.inf)
    return item, score


def _rescan(
    items: Items, queries: FloatArray, seen: Seen, user: int, cut: float, n: int
) -> tuple[ItemArray, DoubleArray]:
    """The list of one user from all items whose float32 score reaches ``cut``."""
    query = queries[user : user + 1]
    scores = (items.factors @ query[0] + items.bias).astype(np.float64)
    scores[seen.items[seen.ptr[user] : seen.ptr[user + 1]]] = -np.inf
    candidates = np.flatnonzero((scores >= cut) & (scores > -np.inf)).astype(np.int32)[None, :]
    item, score = _ordered(candidates, score_pairs(items, query, candidates), n)
    return item[0], score[0]


@numba.njit(cache=True, nogil=True)
def _is_ascending(ptr, items, n_items):
    for user in range(len(ptr) - 1):
        before = -1
        for event in range(ptr[user], ptr[user + 1]):
            if items[event] < before or items[event] < 0 or items[event] >= n_items:
                return False
            before = items[event]
    return True


@numba.njit(cache=True, nogil=True)
def _mask(tile, start, cursor, stop, items):
    """Sets the seen items of the tile to -inf and moves each user's cursor behind them."""
    end = start + tile.shape[1]
    for user in range(tile.shape[0]):
        event = cursor[user]
        while event < stop[user] and items[event] < end:
            tile[user, items[event] - start] = -np.inf
            event += 1
        cursor[user] = event


@numba.njit(cache=True, nogil=True)
def _select(tile, bias, start, heap_score, heap_item):
    """Offers a tile to the users' min-heaps; 64 items none of which beats the worst kept one cost a few vector compares."""
    chunks = tile.shape[1] // _CHUNK
    for user in range(tile.shape[0]):
        for chunk in range(chunks):
            threshold = heap_score[user, 0]
            better = np.int32(0)
            # unsigned indices and a 32-bit count: with either missing LLVM does not vectorise this loop (8 times slower)
            for lane in range(np.uint32(_CHUNK)):
                j = np.uint64(chunk) * np.uint64(_CHUNK) + np.uint64(lane)
                better += np.int32(1) if tile[np.uint64(user), j] + bias[j] > threshold else np.int32(0)
            if better > 0:
                _offer(tile[user], bias, chunk * _CHUNK, (chunk + 1) * _CHUNK, start, heap_score[user], heap_item[user])
        _offer(tile[user], bias, chunks * _CHUNK, tile.shape[1], start, heap_score[user], heap_item[user])


@numba.njit(cache=True, nogil=True)
def _offer(row, bias, first, last, start, score, item):
    for j in range(first, last):
        value = row[j] + bias[j]
        if value > score[0]:
            _replace_least(score, item, value, start + j)


@numba.njit(cache=True, nogil=True, inline="always")
def _replace_least(score, item, value, index):
    size = len(score)
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and score[child + 1] < score[child]:
            child += 1
        if score[child] >= value:
            break
        score[place] = score[child]
        item[place] = item[child]
        place = child
    score[place] = value
    item[place] = index


@numba.njit(cache=True, nogil=True)
def _score_pairs(factors, bias, queries, item, out):
    for user in range(item.shape[0]):
        for place in range(item.shape[1]):
            index = item[user, place]
            total = -np.inf
            if index >= 0:
                total = 0.0
                for f in range(factors.shape[1]):
                    total += np.float64(queries[user, f]) * np.float64(factors[index, f])
                total += np.float64(bias[index])
            out[user, place] = total
