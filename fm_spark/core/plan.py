"""The order in which a block visits its events: chunks of neighbouring positives, mixed over users."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.sequences import Sequences

Ints = npt.NDArray[np.int64]

# of 1, 8 and 64 neighbouring positives a run, 1 and 8 are equally good where rounds share the users, and 8 cost less
PART_CHUNK = 8


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


class Part(NamedTuple):
    """Which of a block's runs of positives a round visits, where rounds share the users.

    Attributes:
        number: which part, from 0; of: how many parts an epoch has.
        key: of the epoch; other keys give other parts.
    """

    number: int = 0
    of: int = 1
    key: int = 0


def positives(sequences: Sequences) -> Positives:
    """Finds the positive events of every user."""
    position = np.flatnonzero(sequences.liked).astype(np.int64)
    return Positives(position, np.searchsorted(position, sequences.ptr).astype(np.int64), sequences.ptr[:-1])


def visit_order(found: Positives, chunk_size: int, rng: np.random.Generator) -> Chunks:
    """Cuts every user's positives into runs of ``chunk_size`` from a random offset, and shuffles all runs.

    Events of one run share the recursion over their history; a minibatch of many runs mixes many users, which
    training needs.
    """
    offset = rng.integers(1, chunk_size + 1, size=len(found.start))
    chunks, _, _ = _cut(found, chunk_size, offset)
    return _taken(chunks, rng.permutation(len(chunks.first)))


def part_order(found: Positives, user: npt.NDArray[Any], part: Part, rng: np.random.Generator) -> Chunks:
    """Cuts every user's positives into runs of :data:`PART_CHUNK`, and shuffles those that belong to the part.

    The parts of an epoch hold every positive once. With few users a round must take some events of all of them: a
    minibatch of one user's events trains badly.

    Args:
        user: int64 [n_users], hashes of the users' ids.
    """
    own = _mixed(user.astype(np.uint64) + np.uint64(part.key))
    chunks, owner, place = _cut(found, PART_CHUNK, (own % np.uint64(PART_CHUNK)).astype(np.int64) + 1)
    falls_to = _mixed(own[owner] + place.astype(np.uint64)) % np.uint64(part.of)
    return _taken(chunks, rng.permutation(np.flatnonzero(falls_to == part.number)))


def _cut(found: Positives, size: int, offset: Ints) -> tuple[Chunks, Ints, Ints]:
    """Runs of ``size`` positives, each user's first one of length ``offset``; with the runs' users and places."""
    n = np.diff(found.ptr)
    runs = np.where(n > 0, 1 + np.maximum(0, -((offset - n) // size)), 0)
    ends = np.cumsum(runs)
    user = np.repeat(np.arange(len(n)), runs)
    place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - runs, runs)
    begin = found.ptr[user] + np.where(place == 0, 0, offset[user] + (place - 1) * size)
    end = np.minimum(found.ptr[user] + offset[user] + place * size, found.ptr[user + 1])
    return Chunks(begin, end, found.start[user]), user, place


def _taken(chunks: Chunks, order: Ints) -> Chunks:
    return Chunks(*(array[order] for array in chunks))


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the result hangs on every bit of ``x``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
