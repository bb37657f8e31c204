"""Packed user histories: what training and ranking read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core.context import Context, join_context, pick_users, slice_users, take_context

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
        value: float32 [n_events], the ratings; None where nobody reads them.
        context: the events' features of time and of users' columns; None when no field is switched on.
    """

    user: npt.NDArray[np.object_] | npt.NDArray[np.int64]
    ptr: npt.NDArray[np.int64]
    item: npt.NDArray[np.int32]
    liked: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]
    part: npt.NDArray[np.uint8]
    value: npt.NDArray[np.float32] | None = None
    context: Context | None = None

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
        None if sequences.value is None else sequences.value[keep],
        take_context(sequences.context, keep),
    )


def one_user(sequences: Sequences, u: int) -> Sequences:
    """The block that holds user ``u`` alone; views, no copies."""
    return users_between(sequences, u, u + 1)


def users_between(sequences: Sequences, first: int, last: int) -> Sequences:
    """The block of the users ``first:last``, as slices go; views, no copies."""
    ptr = sequences.ptr[first : last + 1]
    events = slice(ptr[0], ptr[-1])
    return Sequences(
        sequences.user[first:last],
        ptr - ptr[0],
        sequences.item[events],
        sequences.liked[events],
        sequences.weight[events],
        sequences.part[events],
        None if sequences.value is None else sequences.value[events],
        slice_users(sequences.context, first, last, events),
    )


def take_users(sequences: Sequences, users: npt.NDArray[np.int64]) -> Sequences:
    """The block that holds the given users (indices) alone, in that order."""
    length = np.diff(sequences.ptr)[users]
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    index = np.repeat(sequences.ptr[users] - ptr[:-1], length) + np.arange(ptr[-1])
    return Sequences(
        sequences.user[users],
        ptr,
        sequences.item[index],
        sequences.liked[index],
        sequences.weight[index],
        sequences.part[index],
        None if sequences.value is None else sequences.value[index],
        pick_users(sequences.context, users, index),
    )


def concatenate(parts: list[Sequences]) -> Sequences:
    """The users of all parts, one part after the other."""
    first = parts[0]
    ends = np.cumsum([0, *(part.ptr[-1] for part in parts)])
    ptr = [part.ptr[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    return Sequences(
        np.concatenate([part.user for part in parts]),
        np.concatenate([*ptr, ends[-1:]]).astype(np.int64),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.liked for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.part for part in parts]),
        None if first.value is None else np.concatenate([part.value for part in parts if part.value is not None]),
        None if first.context is None else join_context([part.context for part in parts if part.context is not None]),
    )


def hold_out(sequences: Sequences, fraction: float, min_positives: int) -> npt.NDArray[np.uint8]:
    """Cuts the last ``fraction`` of every user's positives, as the split ``user_time`` does.

    A user with n >= min_positives positives holds out those of rank >= floor((1 - fraction) n).

    Returns:
        uint8 [n_events]: TRAIN before the user's first held-out event, TEST for held-out positives, UNUSED for the
        other events after it. Users with fewer positives are all TRAIN.
    """
    part = np.zeros(len(sequences.item), np.uint8)
    position = np.flatnonzero(sequences.liked)
    ptr = np.searchsorted(position, sequences.ptr)
    for u in range(sequences.n_users):
        n = ptr[u + 1] - ptr[u]
        if n < min_positives:
            continue
        # the small number guards against (1 - 0.2) * 5 = 3.9999...
        held = position[ptr[u] + int((1.0 - fraction) * n + 1e-9) : ptr[u + 1]]
        if len(held):
            part[held[0] : sequences.ptr[u + 1]] = UNUSED
            part[held] = TEST
    return part
