"""Decayed history bags: the recursion along a user's events, forwards for queries and backwards for gradients.

The bag of decay d before event p of a user holds his earlier events, newest first, with the values d^0, d^1, d^2, ...
divided by their 2-norm. It is never built: with S <- d S + v[event] the query's share is S / norm(n), and the
gradient of event s is the same recursion run backwards. Cost O(k) an event and decay.

Terms smaller than :data:`NEGLIGIBLE` of the newest one are left out, so a long history costs no more than its
window, log(NEGLIGIBLE) / log(d) events; this is below the rounding of float32.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.prefetch import AHEAD, prefetch_item, prefetch_row
from fm_spark.core.touched import place_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NEGLIGIBLE = 1e-7


def windows(decays: npt.NDArray[np.float64]) -> Ints:
    """How many events back each decay can see, int64 [n_decays]; decays float64 in (0, 1)."""
    return np.array([max(1, math.ceil(math.log(NEGLIGIBLE) / math.log(d))) for d in decays], dtype=np.int64)


@njit(inline="always")
def inverse_norm(decay, n, window):  # type: ignore[no-untyped-def]
    """1 / 2-norm of (1, d, ..., d^(n-1)) as float32; n > 0. Beyond the window it no longer changes."""
    left_out = decay ** (2.0 * n) if n < window else 0.0
    return np.float32(math.sqrt((1.0 - decay * decay) / (1.0 - left_out)))


@njit(cache=True, nogil=True, fastmath=True)
def forward(
    factors: Floats,
    n_items: int,
    decays: npt.NDArray[np.float64],
    window: Ints,
    item: npt.NDArray[np.int32],
    liked: npt.NDArray[np.uint8],
    chunk_ptr: Ints,
    chunk_start: Ints,
    position: Ints,
    out: Floats,
) -> None:
    """Query vectors of asked-for positions: ``out[j]`` = sum over decays of S_d / norm just before ``position[j]``.

    Args:
        factors: float32 [n_tables * n_items, k]; table 2 * decay + liked holds the history vectors of that decay.
        item, liked: the events of all users, concatenated.
        chunk_ptr: int64 [n_chunks + 1]; chunk c asks for ``position[chunk_ptr[c]:chunk_ptr[c + 1]]``, ascending.
        chunk_start: int64 [n_chunks], where the history of the chunk's user begins in ``item``.
        position: int64 [n_queries], places in ``item`` (one past the user's last event is allowed).
        out: float32 [n_queries, k], overwritten.
    """
    k = factors.shape[1]
    state = np.empty(k, np.float32)
    out[: chunk_ptr[-1]] = 0.0
    for c in range(len(chunk_ptr) - 1):
        first, last, start = chunk_ptr[c], chunk_ptr[c + 1], chunk_start[c]
        if first == last:
            continue
        end = position[last - 1]
        for d in range(len(decays)):
            decay = np.float32(decays[d])
            state[:] = 0.0
            s = max(start, position[first] - window[d])
            for j in range(first, last):
                p = position[j]
                if p - s > window[d]:
                    s = p - window[d]
                    state[:] = 0.0
                while s < p:
                    if s + AHEAD < end:
                        prefetch_row(factors, (2 * d + liked[s + AHEAD]) * n_items + item[s + AHEAD])
                    row = (2 * d + liked[s]) * n_items + item[s]
                    for f in range(k):
                        state[f] = decay * state[f] + factors[row, f]
                    s += 1
                if p > start:
                    scale = inverse_norm(decays[d], p - start, window[d])
                    for f in range(k):
                        out[j, f] += scale * state[f]


@njit(cache=True, nogil=True, fastmath=True)
def backward(
    grad: Floats,
    place: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int32],
    n_rows: int,
    n_items: int,
    decays: npt.NDArray[np.float64],
    window: Ints,
    item: npt.NDArray[np.int32],
    liked: npt.NDArray[np.uint8],
    chunk_ptr: Ints,
    chunk_start: Ints,
    position: Ints,
    grad_query: Floats,
) -> int:
    """Adds the gradient of the history vectors for ``grad_query`` (float32 [n_queries, k]) to ``grad``.

    The gradient of row r is ``grad[place[r] - 1]``, one row after the other as they are first touched, so that it
    stays in the cache; ``place[r]`` is 0 for a row without one. ``rows`` lists those with one, from ``n_rows`` on;
    returns the new length of the list. The other arguments are those of :func:`forward`.
    """
    k = grad.shape[1]
    state = np.empty(k, np.float32)
    for c in range(len(chunk_ptr) - 1):
        first, last, start = chunk_ptr[c], chunk_ptr[c + 1], chunk_start[c]
        if first == last:
            continue
        for d in range(len(decays)):
            decay = np.float32(decays[d])
            state[:] = 0.0
            j = last - 1
            s = position[j] - 1
            end = max(start, position[first] - window[d])
            age = window[d]  # of the newest query that reaches event s; at `window` the state is empty
            while s >= end:
                while j >= first and position[j] == s + 1:
                    if age >= window[d]:
                        state[:] = 0.0
                    scale = inverse_norm(decays[d], s + 1 - start, window[d])
                    for f in range(k):
                        state[f] += scale * grad_query[j, f]
                    age = 0
                    j -= 1
                if age >= window[d]:
                    s = position[j] - 1  # skip to the next query; j >= first because s >= end
                    continue
                if s - AHEAD >= end:
                    prefetch_item(place, (2 * d + liked[s - AHEAD]) * n_items + item[s - AHEAD])
                row = (2 * d + liked[s]) * n_items + item[s]
                at, n_rows, first_touch = place_of(place, rows, n_rows, row)
                if first_touch:
                    for f in range(k):
                        grad[at, f] = state[f]
                        state[f] *= decay
                else:
                    for f in range(k):
                        grad[at, f] += state[f]
                        state[f] *= decay
                age += 1
                s -= 1
    return n_rows
