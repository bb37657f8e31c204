"""Events as sparse feature vectors for the losses that look at one event or one pair at a time.

The vector of an event is the concatenation of fields: the user one-hot (optional), the item one-hot, static features
of the event (time, extra columns), static features of the item (genres, tags, year), and a bag of the user's training
items. All fields share one row space: a feature is a row of ``FmParameters.factors``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# in ``Events.user``: the event has no user feature
NO_USER = -1


class Features(NamedTuple):
    """Sparse features of n things (compressed rows); thing i has the features ``ptr[i]:ptr[i + 1]``.

    Attributes:
        ptr: int64 [n + 1].
        row: int32 [nnz], rows of the parameters; those of one thing are distinct.
        value: float32 [nnz].
    """

    ptr: Ints
    row: Rows
    value: Floats


class Events(NamedTuple):
    """The events of a block of users, user after user; user ``u`` owns the events ``ptr[u]:ptr[u + 1]``.

    Attributes:
        key: int64 [n_users], a number of the user that does not depend on the block (for random numbers).
        ptr: int64 [n_users + 1].
        user: int32 [n_events], the user's row, or NO_USER.
        item: int32 [n_events], row of the item.
        label: float32 [n_events], the rating; 0 or 1 with ``logistic``; not used with ``bpr``, where every event is
            a positive.
        weight: float32 [n_events], how often the event counts.
        context: static features of the events, n = n_events.
        bag: bags of the users, n = n_users; rows of the bag field.
    """

    key: Ints
    ptr: Ints
    user: Rows
    item: Rows
    label: Floats
    weight: Floats
    context: Features
    bag: Features

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.ptr) - 1


class Fields(NamedTuple):
    """How many rows each field has; they lie one after the other: users, items, static features, context, bag."""

    n_users: int
    n_items: int
    n_side: int = 0
    n_bag: int = 0
    n_context: int = 0

    @property
    def item_offset(self) -> int:
        """First row of the items."""
        return self.n_users

    @property
    def side_offset(self) -> int:
        """First row of the items' static features."""
        return self.n_users + self.n_items

    @property
    def context_offset(self) -> int:
        """First row of the context."""
        return self.side_offset + self.n_side

    @property
    def bag_offset(self) -> int:
        """First row of the bag."""
        return self.context_offset + self.n_context

    @property
    def n_rows(self) -> int:
        """Rows of all fields."""
        return self.bag_offset + self.n_bag


def no_features(n: int) -> Features:
    """Features of ``n`` things that have none."""
    return Features(np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


def take_features(features: Features, index: Ints) -> Features:
    """The features of the things ``index`` (int64 [m]), in that order."""
    length = np.diff(features.ptr)[index]
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    at = np.repeat(features.ptr[index] - ptr[:-1], length) + np.arange(ptr[-1])
    return Features(ptr, features.row[at], features.value[at])


def bag_of_items(ptr: Ints, item: Rows, first_row: int) -> Features:
    """Bags of users who own the items ``ptr[u]:ptr[u + 1]``: each with the value 1 / sqrt(n), as in SVD++.

    Args:
        item: int32 [n_events], index of the item in the catalogue; the items of one user are distinct.
        first_row: row of the parameters that belongs to item 0.

    Source:
        Koren 2008, "Factorization meets the neighborhood", eq. 15.
    """
    length = np.diff(ptr)
    value = np.repeat(1.0 / np.sqrt(np.maximum(1, length)), length).astype(np.float32)
    return Features(ptr.astype(np.int64), (item + first_row).astype(np.int32), value)


def take_users(events: Events, users: Ints) -> Events:
    """The block that holds the given users (indices) alone, in that order."""
    length = np.diff(events.ptr)[users]
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    at = np.repeat(events.ptr[users] - ptr[:-1], length) + np.arange(ptr[-1])
    return Events(
        events.key[users],
        ptr,
        events.user[at],
        events.item[at],
        events.label[at],
        events.weight[at],
        take_features(events.context, at),
        take_features(events.bag, users),
    )
