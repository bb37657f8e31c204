"""Compiled inner loops of :mod:`fm_spark.core.topk` and :mod:`fm_spark.core.item_scores`."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Index = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

CHUNK = 64


@numba.njit(cache=True, nogil=True)
def is_ascending(ptr: Ints, items: Index, n_items: int) -> bool:
    """Whether each user's items ascend and lie in [0, n_items)."""
    for user in range(len(ptr) - 1):
        before = -1
        for event in range(ptr[user], ptr[user + 1]):
            if items[event] < before or items[event] < 0 or items[event] >= n_items:
                return False
            before = items[event]
    return True


@numba.njit(cache=True, nogil=True)
def sort_within(ptr: Ints, items: Index) -> None:
    """Sorts each user's items."""
    for user in range(len(ptr) - 1):
        items[ptr[user] : ptr[user + 1]].sort()


@numba.njit(cache=True, nogil=True)
def mask(tile: Floats | Doubles, rows: Ints, start: int, cursor: Ints, stop: Ints, items: Index) -> None:
    """Sets the seen items of the tile to -inf and moves each user's cursor behind them.

    Args:
        tile: [n_rows, n_items], the items from ``start`` on; tiles come in ascending order, and a user may miss some.
        rows: int64 [n_rows], whose scores they are.
        cursor, stop: int64 [n_users], the part of ``items`` that each user still has before him.
    """
    end = start + tile.shape[1]
    for row in range(tile.shape[0]):
        user = rows[row]
        event = cursor[user]
        while event < stop[user] and items[event] < end:
            if items[event] >= start:
                tile[row, items[event] - start] = -np.inf
            event += 1
        cursor[user] = event


@numba.njit(cache=True, nogil=True)
def select(
    tile: Floats,
    rows: Ints,
    bias: Floats,
    start: int,
    kept: int,
    score: Floats,
    item: Index,
    fill: Ints,
    threshold: Floats,
) -> None:
    """Collects what may be among each user's ``kept`` best; 64 items without any cost a few vector compares.

    Candidates are appended to ``score``/``item`` (``fill`` of them a user, room for 2 kept + CHUNK + 1); when more than
    2 kept are there, the best ``kept`` stay and the least of them becomes the threshold that the next have to beat.

    Args:
        rows: int64 [n_rows], whose scores the rows of the tile are.
    """
    chunks = tile.shape[1] // CHUNK
    for row in range(tile.shape[0]):
        user = rows[row]
        for chunk in range(chunks):
            bar = threshold[user]
            first = np.uint64(chunk) * np.uint64(CHUNK)
            better = np.int32(0)
            # unsigned indices and a 32-bit count: without them LLVM does not vectorise this loop (8 times slower)
            for lane in range(np.uint32(CHUNK)):
                j = first + np.uint64(lane)
                better += np.int32(1) if tile[np.uint64(row), j] + bias[j] > bar else np.int32(0)
            if better > 0:
                _append(tile, row, bias, user, first, CHUNK, start, kept, score, item, fill, threshold)
        rest = np.uint64(chunks) * np.uint64(CHUNK)
        _append(tile, row, bias, user, rest, tile.shape[1] % CHUNK, start, kept, score, item, fill, threshold)


@numba.njit(cache=True, nogil=True)
def _append(tile, row, bias, user, first, width, start, kept, score, item, fill, threshold):  # type: ignore[no-untyped-def]
    """Appends the candidates among at most ``CHUNK`` items and makes room for the next ``CHUNK``."""
    bar = threshold[user]
    r, u = np.uint64(row), np.uint64(user)
    place = np.uint64(fill[user])
    # writes every item and moves on only behind a good one: a branch here would be mispredicted most of the time
    for lane in range(np.uint32(width)):
        j = first + np.uint64(lane)
        value = tile[r, j] + bias[j]
        score[u, place] = value
        item[u, place] = np.int32(start + j)
        place += np.uint64(1) if value > bar else np.uint64(0)
    if place > np.uint64(2 * kept):
        threshold[user] = keep_best(score[user], item[user], np.int64(place), kept)  # type: ignore[arg-type]
        place = np.uint64(kept)
    fill[user] = place


@numba.njit(cache=True, nogil=True)
def finish(score: Floats, item: Index, fill: Ints, threshold: Floats, candidates: Index) -> None:
    """Writes each user's best items to ``candidates`` [n_users, kept]; ``threshold`` then bounds all others."""
    kept = candidates.shape[1]
    for user in range(candidates.shape[0]):
        if fill[user] > kept:
            threshold[user] = keep_best(score[user], item[user], fill[user], kept)
        size = min(fill[user], kept)
        candidates[user, :size] = item[user, :size]


@numba.njit(cache=True, nogil=True)
def keep_best(score: Floats, item: Index, size: int, kept: int) -> float:
    """Moves the ``kept`` largest of the first ``size`` scores to the front, in any order; returns the least of them.

    Source: Hoare, Algorithm 65: FIND (1961).
    """
    low = 0
    high = size - 1
    while low < high:
        pivot = score[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while score[i] > pivot:
                i += 1
            while score[j] < pivot:
                j -= 1
            if i <= j:
                score[i], score[j] = score[j], score[i]
                item[i], item[j] = item[j], item[i]
                i += 1
                j -= 1
        if kept - 1 <= j:
            high = j
        elif kept - 1 >= i:
            low = i
        else:
            break
    return score[kept - 1]  # type: ignore[no-any-return]


@numba.njit(cache=True, nogil=True)
def pair_score(query: Floats, factors: Floats, bias: float) -> float:
    """<query, factors> + bias in float64, summed from the first factor on: the score that decides."""
    total = 0.0
    for f in range(len(factors)):
        total += np.float64(query[f]) * np.float64(factors[f])
    return total + np.float64(bias)


@numba.njit(cache=True, nogil=True)
def score_pairs(factors: Floats, bias: Floats, queries: Floats, item: Index, out: Doubles) -> None:
    """Scores the items of each row of ``item``; -1 gets -inf."""
    for user in range(item.shape[0]):
        for place in range(item.shape[1]):
            index = item[user, place]
            out[user, place] = -np.inf
            if index >= 0:
                out[user, place] = pair_score(queries[user], factors[index], bias[index])
