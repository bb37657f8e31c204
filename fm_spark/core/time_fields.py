"""Fields of time: what is known of an event from its own time and from the user's first one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fm_spark.core.context import ContextFields
from fm_spark.core.fm_events import Ints, Rows

HOUR = 3_600_000_000
"""Microseconds."""
DAY = 24 * HOUR
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday
_LAST_BIN = 15  # from 2^14 days on: 45 years


class TimeField(NamedTuple):
    """One field.

    Attributes:
        code: (time, time of the user's first event; int64 [n], microseconds since 1970 UTC) -> bin, int64 [n].
        name: the value that stands for a bin.
        values: all values; None when only those that events have are listed.
    """

    code: Callable[[Ints, Ints], Ints]
    name: Callable[[int], str]
    values: tuple[str, ...] | None


def _hour_of_week(time: Ints, first: Ints) -> Ints:
    return (time // HOUR + 24 * _FIRST_WEEKDAY) % 168


def _hour_name(code: int) -> str:
    return f"{_WEEKDAYS[code // 24]} {code % 24:02d}"


def _days_since_first(time: Ints, first: Ints) -> Ints:
    days = np.maximum(time - first, 0) // DAY
    exponent: Ints = np.frexp(days.astype(np.float64))[1].astype(np.int64)  # 2^(e-1) <= days < 2^e; 0 for 0
    return np.minimum(exponent, _LAST_BIN)


def _days_name(code: int) -> str:
    if code <= 1:
        return str(code)
    least = 2 ** (code - 1)
    return f"{least}+" if code == _LAST_BIN else f"{least}-{2 * least - 1}"


def _month(time: Ints, first: Ints) -> Ints:
    months: Ints = time.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    return months


def _month_name(code: int) -> str:
    return str(np.datetime64(code, "M"))


TIME_FIELDS = {
    "hour_of_week": TimeField(_hour_of_week, _hour_name, tuple(map(_hour_name, range(168)))),
    "days_since_first": TimeField(_days_since_first, _days_name, tuple(map(_days_name, range(_LAST_BIN + 1)))),
    "calendar": TimeField(_month, _month_name, None),
}
"""The fields of time by their names, in the order in which machines have them."""


def time_rows(fields: ContextFields, time: Ints, first: Ints) -> Rows:
    """Context rows of the fields of time, int32 [n, n_time].

    Args:
        time: int64 [n], microseconds since 1970 UTC; ``fields.as_of`` takes its place when it is given.
        first: int64 [n], of the first event in the user's whole history.
    """
    if fields.as_of is not None:
        time = np.full_like(time, fields.as_of)
    rows = np.empty((len(time), len(fields.time)), np.int32)
    for j, name in enumerate(fields.time):
        field, offset = TIME_FIELDS[name], fields.offsets[j]
        place = {value: p for p, value in enumerate(fields.values[j], start=1)}
        code, inverse = np.unique(field.code(time, first), return_inverse=True)
        known = np.array([offset + place.get(field.name(int(c)), 0) for c in code], np.int32)
        rows[:, j] = known[inverse]
    return rows
