"""The context of an event: features of its query side beside the history (fields of time, columns of the user).

Context rows are numbered from 0 over all context fields, one field after the other; the first row of a field stands
for every value that the field does not list. Where the parameters hold them is a matter of each machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.fm_events import Features, Floats, Ints, Rows, take_features
from fm_spark.core.touched import place_of


class ContextFields(NamedTuple):
    """The context fields of a machine.

    Attributes:
        time: names of the fields of time, keys of :data:`fm_spark.core.time_fields.TIME_FIELDS`.
        user: names of the user's columns.
        values: of each field (those of time first) the values that it lists; value j has row j + 1 of the field.
        as_of: events are seen as of this time, microseconds since 1970 UTC; None for each event's own time.
    """

    time: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    as_of: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each field."""
        return tuple(len(values) + 1 for values in self.values)

    @property
    def offsets(self) -> Rows:
        """First row of each field, int32 [n_fields]: the row of a value that it does not list."""
        return np.cumsum([0, *self.sizes[:-1]]).astype(np.int32)[: len(self.values)]

    @property
    def n_rows(self) -> int:
        """Rows of all fields."""
        return sum(self.sizes)


NO_CONTEXT = ContextFields()


class Context(NamedTuple):
    """The context features of a block's events.

    Attributes:
        time: int32 [n_events, n_time], context rows of the fields of time, each with the value 1.
        user: features of the users' columns, n = n_users, for all events of a user.
    """

    time: Rows
    user: Features


def take_context(context: Context | None, event: Ints | slice | npt.NDArray[np.bool_]) -> Context | None:
    """The context of some events; all users stay."""
    return None if context is None else Context(context.time[event], context.user)


def slice_users(context: Context | None, first: int, last: int, events: slice) -> Context | None:
    """The context of the users ``first:last``, who own ``events``; views but for one array of n_users."""
    if context is None:
        return None
    ptr = context.user.ptr[first : last + 1]
    own = slice(ptr[0], ptr[-1])
    return Context(context.time[events], Features(ptr - ptr[0], context.user.row[own], context.user.value[own]))


def pick_users(context: Context | None, users: Ints, event: Ints) -> Context | None:
    """The context of the given users (indices), who own the events ``event``, in that order."""
    return None if context is None else Context(context.time[event], take_features(context.user, users))


def join_context(parts: list[Context]) -> Context:
    """The events and users of all parts, one part after the other."""
    users = [part.user for part in parts]
    ends = np.cumsum([0, *(len(user.row) for user in users)])
    ptr = [user.ptr[:-1] + end for user, end in zip(users, ends[:-1], strict=True)]
    return Context(
        np.concatenate([part.time for part in parts]),
        Features(
            np.concatenate([*ptr, ends[-1:]]).astype(np.int64),
            np.concatenate([user.row for user in users]),
            np.concatenate([user.value for user in users]),
        ),
    )


def event_features(context: Context, event: Ints, owner: Ints, first_row: int = 0) -> Features:
    """All context features of events, those of time first.

    Args:
        event, owner: int64 [n], the events and the users whose they are.
        first_row: what context row 0 is called in the result.
    """
    return _merged(context.time[event], take_features(context.user, owner), first_row)


def first_features(context: Context, ptr: Ints, unseen: Rows) -> Features:
    """The context features of every user's first event, n = n_users.

    Args:
        ptr: int64 [n_users + 1], the users' events.
        unseen: int32 [n_time], what a user without events has.
    """
    some = np.diff(ptr) > 0
    time = np.tile(unseen, (len(some), 1))
    time[some] = context.time[ptr[:-1][some]]
    return _merged(time, context.user, 0)


def _merged(time: Rows, user: Features, first_row: int) -> Features:
    n, n_time = time.shape
    length = np.diff(user.ptr) + n_time
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    row, value = np.empty(ptr[-1], np.int32), np.ones(ptr[-1], np.float32)
    of_user = np.arange(ptr[-1]) - np.repeat(ptr[:-1], length) >= n_time
    row[~of_user] = time.reshape(n * n_time)
    row[of_user], value[of_user] = user.row, user.value
    return Features(ptr, row + np.int32(first_row), value)


@njit(cache=True, nogil=True, fastmath=True)
def add_features(factors: Floats, features: Features, out: Floats) -> None:
    """``out[j] += sum of x v`` over the features of thing j; out float32 [n, k]."""
    for j in range(len(features.ptr) - 1):
        for p in range(features.ptr[j], features.ptr[j + 1]):
            row, x = features.row[p], features.value[p]
            for f in range(factors.shape[1]):
                out[j, f] += x * factors[row, f]


@njit(cache=True, nogil=True, fastmath=True)
def features_backward(
    grad: Floats, place: Rows, rows: Rows, n_rows: int, features: Features, grad_query: Floats
) -> int:
    """Adds the gradient of the features' vectors, x dL/dquery, to ``grad``.

    Args:
        grad, place, rows, n_rows: as in :func:`fm_spark.core.history.backward`.
        grad_query: float32 [n, k].

    Returns:
        The new length of the list ``rows``.
    """
    for j in range(len(features.ptr) - 1):
        for p in range(features.ptr[j], features.ptr[j + 1]):
            x = features.value[p]
            at, n_rows, first = place_of(place, rows, n_rows, features.row[p])
            if first:
                for f in range(grad.shape[1]):
                    grad[at, f] = x * grad_query[j, f]
            else:
                for f in range(grad.shape[1]):
                    grad[at, f] += x * grad_query[j, f]
    return n_rows
