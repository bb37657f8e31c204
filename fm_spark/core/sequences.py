"""Packed user histories: what training and ranking read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TRAIN, TEST, UNUSED = 0, 1, 2
PARTS = {"train": TRAIN, "test": TEST, "unused": UNUSED}


class Sequences(NamedTuple):
    """The time-ordered events of a block of users; user ``u`` owns the events ``ptr[u]:ptr[u + 1]``.

    Attributes:
        user: int64 or object [n_users], the ids of the users.
        ptr: int64 [n_users + 1].
        item: int32 [n_events], index of the item in the catalogue (items in ascending order of their ids).
        liked: uint8 [n_events], 1 for a positive event.
        weight: float32 [n_events].
        part: uint8 [n_events], TRAIN, TEST or UNUSED.
    """

    user: npt.NDArray[np.object_] | npt.NDArray[np.int64]
    ptr: npt.NDArray[np.int64]
    item: npt.NDArray[np.int32]
    liked: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]
    part: npt.NDArray[np.uint8]

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.ptr) - 1


def select(sequences: Sequences, keep: npt.NDArray[np.bool_]) -> Sequences:
    """Keeps the events where ``keep`` (bool [n_events]) is true; users stay, also those left without events."""
    kept = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
    return Sequences(
        sequences.user,
        kept[sequences.ptr],
        sequences.item[keep],
        sequences.liked[keep],
        sequences.weight[keep],
        sequences.part[keep],
    )
