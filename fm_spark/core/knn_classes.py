"""The star class of a pair by its neighbours: the items that the user rated and that lie nearest to the item vote."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.sequences import Sequences

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MOST_CLASSES = 50
"""More different values are measures, not classes."""
# similarities of so many items at once to all that a user rated: 1,024 x 10,000 in float32 are 40 MB
_TILE = 1_024


class Votes(NamedTuple):
    """What the neighbours said.

    Attributes:
        label: int64 [n_asked], index of the class; -1 for a user who rated nothing else.
        voters: int64 [n_asked], how many neighbours voted.
    """

    label: Ints
    voters: Ints


def unit_rows(item_factors: Floats) -> Floats:
    """Rows of length 1, float32 [n_items, k]; rows of zeros stay, and are as near to everything as anything else."""
    norm = np.linalg.norm(item_factors.astype(np.float64), axis=1, keepdims=True)
    return (item_factors / np.where(norm > 0, norm, 1.0)).astype(np.float32)


def class_votes(vectors: Floats, known: Sequences, classes: npt.NDArray[np.float64], asked: Sequences, k: int) -> Votes:
    """The class that the k nearest rated items of the user say, for every asked event.

    Nearness is the cosine of the item vectors, ties go to the smaller item. A neighbour votes for the class of its
    rating with 1 + cosine; the class with most wins, the smaller of equals. The asked item itself has no vote.

    Args:
        vectors: float32 [n_items, d], from :func:`unit_rows`.
        known: what each user rated, with values; asked: of the same users.
        classes: float64 [n_classes] ascending; every value of ``known`` is one of them.

    Source: Fix and Hodges 1951; the distance-weighted vote of Dudani 1976, with the cosine in place of a distance.
    """
    value = known.value if known.value is not None else np.zeros(len(known.item), np.float32)
    label = np.searchsorted(classes.astype(np.float32), value)
    found = Votes(np.full(len(asked.item), -1, np.int64), np.zeros(len(asked.item), np.int64))
    for user in range(known.n_users):
        own = slice(known.ptr[user], known.ptr[user + 1])
        order = np.argsort(known.item[own], kind="stable")
        rated, rated_label = known.item[own][order], label[own][order]
        for first in range(asked.ptr[user], asked.ptr[user + 1], _TILE):
            part = slice(first, min(first + _TILE, asked.ptr[user + 1]))
            if len(rated):
                near = vectors[asked.item[part]] @ vectors[rated].T
                _vote(
                    near, asked.item[part], rated, rated_label, k, len(classes), found.label[part], found.voters[part]
                )
    return found


@njit(cache=True, nogil=True)
def _vote(near, asked, rated, label, k, n_classes, out, voters):  # type: ignore[no-untyped-def]
    best, at = np.empty(k, np.float32), np.empty(k, np.int64)
    votes = np.empty(n_classes, np.float64)
    for row in range(len(asked)):
        size = 0
        for j in range(len(rated)):
            if rated[j] == asked[row] or (size == k and near[row, j] <= best[k - 1]):
                continue
            place = size if size < k else k - 1
            while place > 0 and best[place - 1] < near[row, j]:
                best[place], at[place] = best[place - 1], at[place - 1]
                place -= 1
            best[place], at[place] = near[row, j], j
            size = min(size + 1, k)
        voters[row] = size
        if size:
            votes[:] = 0.0
            for place in range(size):
                votes[label[at[place]]] += 1.0 + best[place]
            out[row] = np.argmax(votes)
