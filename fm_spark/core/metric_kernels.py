"""Compiled inner loops of :mod:`fm_spark.core.metrics`."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from fm_spark.core.topk_kernels import Doubles, Floats, Index, Ints, pair_score


@numba.njit(cache=True, nogil=True)
def hits(lists: Index, truth_ptr: Ints, truth_items: Index) -> npt.NDArray[np.bool_]:
    """bool [n_users, n]: whether each listed item (-1 for none) is among the user's held-out ones (ascending)."""
    out = np.zeros(lists.shape, dtype=np.bool_)
    for user in range(lists.shape[0]):
        truth = truth_items[truth_ptr[user] : truth_ptr[user + 1]]
        for place in range(lists.shape[1]):
            out[user, place] = _holds(truth, lists[user, place])
    return out


@numba.njit(cache=True, nogil=True)
def _holds(ascending: Index, item: int) -> bool:
    place = np.searchsorted(ascending, item)
    return bool(place < len(ascending) and ascending[place] == item)


@numba.njit(cache=True, nogil=True)
def best_items(
    factors: Floats,
    bias: Floats,
    queries: Floats,
    seen_ptr: Ints,
    seen_items: Index,
    truth_ptr: Ints,
    truth_items: Index,
) -> tuple[Index, Doubles]:
    """Each user's best held-out item that is neither seen nor forbidden (-1 for none), and its float64 score."""
    n_users = len(truth_ptr) - 1
    item = np.full(n_users, -1, dtype=np.int32)
    score = np.full(n_users, -np.inf)
    for user in range(n_users):
        seen = seen_items[seen_ptr[user] : seen_ptr[user + 1]]
        for event in range(truth_ptr[user], truth_ptr[user + 1]):
            candidate = truth_items[event]
            if bias[candidate] == -np.inf or _holds(seen, candidate):
                continue
            value = pair_score(queries[user], factors[candidate], bias[candidate])
            if value > score[user]:  # items ascend, so the first of equals is the one of least index
                score[user] = value
                item[user] = candidate
    return item, score


@numba.njit(cache=True, nogil=True)
def count_better(
    tile: Floats,
    start: int,
    factors: Floats,
    bias: Floats,
    queries: Floats,
    target: Index,
    score: Doubles,
    low: Floats,
    high: Floats,
    better: Ints,
) -> None:
    """Adds to ``better`` the items of the tile that rank before each user's target.

    float32 scores above ``high`` are better for sure, those below ``low`` worse; between, float64 and the index decide.
    """
    width = tile.shape[1]
    for user in range(tile.shape[0]):
        u = np.uint64(user)
        above = np.int32(0)
        near = np.int32(0)
        for lane in range(np.uint32(width)):
            j = np.uint64(lane)
            value = tile[u, j] + bias[np.uint64(start) + j]
            above += np.int32(1) if value > high[user] else np.int32(0)
            near += np.int32(1) if value >= low[user] else np.int32(0)
        better[user] += above
        if target[user] < 0 or near == above:
            continue
        for place in range(width):
            index = start + place
            value = tile[user, place] + bias[index]
            if low[user] <= value <= high[user]:
                exact = pair_score(queries[user], factors[index], bias[index])
                if exact > score[user] or (exact == score[user] and index < target[user]):
                    better[user] += 1
