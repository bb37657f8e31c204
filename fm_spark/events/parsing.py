"""Column -> Column: text and numbers of any input into ids, times, values, genres and years; null when unreadable."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

_MICROS = {"seconds": 1_000_000, "milliseconds": 1_000}
# years 1 and 9999, the range of Spark's and Python's timestamps, in seconds since 1970
_LEAST_SECOND, _MOST_SECOND = -62_135_596_800, 253_402_300_799
_INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_FRACTIONS = (T.FloatType, T.DoubleType, T.DecimalType)


def is_integer(kind: T.DataType) -> bool:
    """Whether a column type holds whole numbers."""
    return isinstance(kind, _INTEGERS)


def is_number(kind: T.DataType) -> bool:
    """Whether a column type holds numbers."""
    return isinstance(kind, _INTEGERS + _FRACTIONS)


def is_empty(column: str) -> Column:
    """True where the column is null or text of nothing but blanks."""
    return F.col(column).isNull() | (F.trim(F.col(column).cast("string")) == "")


def whole_number(column: str) -> Column:
    """bigint, or null where the text is not a whole number that fits."""
    return F.expr(f"try_cast(`{column}` as bigint)")


def is_plain_integer(column: str) -> Column:
    """True where the text is the one canonical writing of a bigint: no blanks, plus sign or leading zeros."""
    return F.coalesce(whole_number(column).cast("string") == F.col(column), F.lit(False))


def number(column: str) -> Column:
    """Finite double, or null; text that only Java takes for a number (``1d``, ``0x1p3``, ``NaN``) is none."""
    value = F.expr(f"try_cast(`{column}` as double)")
    java_only = F.col(column).cast("string").rlike("[dDfFpP]")
    finite = ~F.isnan(value) & (F.abs(value) != float("inf"))
    return F.when(finite & ~java_only, value)


def instant(column: str, kind: T.DataType, unit: str) -> Column:
    """timestamp, or null where the column is unreadable or outside the years 1 to 9999.

    Args:
        kind: the column's type; a timestamp or a date is taken as it is, in UTC.
        unit: of numbers and text: seconds, milliseconds, or timestamp (ISO-8601 text, UTC when it names no zone).
    """
    if isinstance(kind, T.TimestampType | T.TimestampNTZType | T.DateType):
        return F.col(column).cast("timestamp")
    if unit == "timestamp":
        # Spark also takes a bare year, or a bare time of today
        dated = F.col(column).rlike(r"^\s*\d{4}-\d{2}-\d{2}")
        return F.when(dated, F.expr(f"try_cast(`{column}` as timestamp)"))
    per_second = 1_000_000 // _MICROS[unit]
    whole = whole_number(column)
    fraction = F.expr(f"try_cast(`{column}` as decimal(20,6))")
    if isinstance(kind, T.FloatType | T.DoubleType | T.DecimalType):
        whole = F.lit(None).cast("bigint")
    least, most = _LEAST_SECOND * per_second, _MOST_SECOND * per_second
    micros = F.coalesce(
        F.when(whole.between(least, most), whole * F.lit(_MICROS[unit])),
        F.when(fraction.between(least, most), (fraction * F.lit(_MICROS[unit])).cast("bigint")),
    )
    return F.timestamp_micros(micros)


def release_year(title: Column) -> Column:
    """int year of the last ``(1995)``, ``(1995-1998)`` or ``(1995-)`` in a title; null when there is none."""
    year = F.regexp_extract(title, r"(?s)^.*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)", 1)
    return F.when(year != "", year.cast("int"))


def distinct_names(names: Column) -> Column:
    """array<string>: trimmed, distinct, sorted, without empty ones; empty for null."""
    # a lambda: F.trim has a second parameter, which transform would take for the place in the array
    trimmed = F.transform(names, lambda name: F.trim(name))
    real = F.filter(trimmed, lambda name: name != "")
    return F.coalesce(F.array_sort(F.array_distinct(real)), F.array().cast("array<string>"))


def genre_names(names: Column) -> Column:
    """:func:`distinct_names` without MovieLens' ``(no genres listed)``."""
    return F.filter(distinct_names(names), lambda name: name != "(no genres listed)")


def split_genres(text: Column) -> Column:
    """:func:`genre_names` of ``|``-separated text."""
    return genre_names(F.split(text, r"\|"))
