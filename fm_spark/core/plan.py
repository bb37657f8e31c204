"""The order in which a block visits its events: chunks of neighbouring positives, mixed over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.sequences import Sequences

Ints = npt.NDArray[np.int64]


class Positives(NamedTuple):
    """The positive events of a block, user after user.

    Attributes:
        position: int64 [n], place of the event in ``Sequences.item``.
        ptr: int64 [n_users + 1], the positives of user u are ``position[ptr[u]:ptr[u + 1]]``.
        start: int64 [n_users], where the user's history begins.
    """

    position: Ints
    ptr: Ints
    start: Ints


class Chunks(NamedTuple):
    """A visiting order: chunk c holds the positives ``first[c]`` up to ``last[c]`` of one user.

    Attributes:
        first, last: int64 [n_chunks], range in ``Positives.position``.
        start: int64 [n_chunks], where the user's history begins.
    """

    first: Ints
    last: Ints
    start: Ints


def positives(sequences: Sequences) -> Positives:
    """Finds the positive events of every user."""
    position = np.flatnonzero(sequences.liked).astype(np.int64)
    return Positives(position, np.searchsorted(position, sequences.ptr).astype(np.int64), sequences.ptr[:-1])


def visit_order(found: Positives, chunk_size: int, rng: np.random.Generator) -> Chunks:
    """Cuts every user's positives into runs of ``chunk_size`` from a random offset, and shuffles all runs.

    Events of one run share the recursion over their history; a minibatch of many runs mixes many users, which
    training needs.
    """
    n = np.diff(found.ptr)
    offset = rng.integers(1, chunk_size + 1, size=len(n))  # length of the first run
    runs = np.where(n > 0, 1 + np.maximum(0, -((offset - n) // chunk_size)), 0)
    ends = np.cumsum(runs)
    user = np.repeat(np.arange(len(n)), runs)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - runs, runs)
    begin = found.ptr[user] + np.where(place == 0, 0, offset[user] + (place - 1) * chunk_size)
    end = np.minimum(found.ptr[user] + offset[user] + place * chunk_size, found.ptr[user + 1])
    order = rng.permutation(len(user))
    return Chunks(begin[order], end[order], found.start[user][order])


@njit(cache=True, nogil=True)
def _next_targets(ptr: Ints, ahead: Ints, out: Ints) -> None:
    for u in range(len(ptr) - 1):
        for j in range(ptr[u], ptr[u + 1]):
            out[j] = j + ahead[j] if j + ahead[j] < ptr[u + 1] else j


def draw_targets(
    sequences: Sequences, found: Positives, target_decay: float, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """The item that each positive event predicts: with probability (1-d) d^g the user's g-th next liked item.

    Beyond the user's last liked item the event predicts its own.

    Returns:
        int32 [n_positives], item indices.
    """
    n = len(found.position)
    chosen = np.arange(n, dtype=np.int64)
    if target_decay > 0.0:
        ahead = rng.geometric(1.0 - target_decay, size=n).astype(np.int64) - 1
        _next_targets(found.ptr, ahead, chosen)
    return sequences.item[found.position[chosen]]
