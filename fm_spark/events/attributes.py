"""Further columns of an items or users file, declared as ``name:kind``, as one column ``attributes``.

``attributes`` is map<string, array<string>>: column -> values. A ``multi`` column has any number of values, a
``categorical`` or ``numeric`` one exactly one: what is not known is ``__unseen__``, a value like any other. Numbers
become the decile that they lie in, so that every value is a name.

The steps, for a reader of files: :func:`parse_attributes`, then :func:`raw_columns` for what to take from the file,
:func:`typed_attributes` for the type and the problem of every row, and, once every row stands for itself,
:func:`with_attributes`. :func:`unknown_attributes` is for what the file does not list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import ConfigError, InputError
from fm_spark.events.parsing import distinct_names, is_empty, is_number, number
from fm_spark.events.vocabulary import UNSEEN

ATTRIBUTES = "attributes"
"""The column that the functions below make."""
TYPE = "map<string, array<string>>"
CATEGORICAL, MULTI, NUMERIC = KINDS = ("categorical", "multi", "numeric")
RESERVED = "__"
"""What names of ours in the map begin with, and names of columns must not."""
N_BINS = 10


class Attribute(NamedTuple):
    """A declared column of a file: its name there, and one of :data:`KINDS`."""

    name: str
    kind: str


class Typed(NamedTuple):
    """Of every row: a struct of the declared columns in their types, and what is wrong (text; null when nothing)."""

    values: Column
    problem: Column


def parse_attributes(declared: Sequence[str], key: str, id_column: str) -> tuple[Attribute, ...]:
    """Takes ``name:kind`` apart; a name may hold colons.

    Args:
        key: the configuration key that declares them, for messages.
        id_column: the file's column of ids, which is no attribute.

    Raises:
        ConfigError: not of that form, an unknown kind, a name twice, or a name that is taken.
    """
    found: list[Attribute] = []
    for text in declared:
        name, _, kind = (part.strip() for part in text.rpartition(":"))
        if not name or kind not in KINDS:
            raise ConfigError(
                f'{key} holds {text!r}, which is not "name:kind" with one of the kinds {", ".join(KINDS)}; '
                f'write for example "brand:{CATEGORICAL}"'
            )
        if name in (one.name for one in found):
            raise ConfigError(f"{key} names the column {name!r} twice; keep one of them")
        if name == id_column:
            raise ConfigError(f"{key} names {name!r}, which is the column of the ids; leave it out")
        if name.startswith(RESERVED):
            raise ConfigError(f"{key} names {name!r}; names that begin with {RESERVED!r} are ours, rename the column")
        found.append(Attribute(name, kind))
    return tuple(found)


def raw_columns(attributes: Sequence[Attribute]) -> dict[str, str]:
    """Raw column to make -> column of the file, in the form that the sources of rows take."""
    return {_raw(place): attribute.name for place, attribute in enumerate(attributes)}


def typed_attributes(raw: DataFrame, attributes: Sequence[Attribute], source: str, key: str) -> Typed:
    """The declared columns of rows that hold :func:`raw_columns`; values that are comparable, so that min() works.

    Args:
        source: the file, for messages.

    Raises:
        InputError: a column of a type that cannot be of its kind.
    """
    values, problems = [], []
    for place, attribute in enumerate(attributes):
        column = _raw(place)
        kind = raw.schema[column].dataType
        if not _fits(kind, attribute.kind):
            raise InputError(
                f"{source}: column {attribute.name!r} has the type {kind.simpleString()}, which cannot be "
                f"{attribute.kind}; declare another kind in {key}"
            )
        values.append(_typed(column, kind, attribute.kind).alias(column))
        if attribute.kind == NUMERIC:
            text = F.col(column).cast("string")
            shown = F.concat(F.lit(f"{attribute.name} '"), text, F.lit("' is not a finite number"))
            unreadable = number(column).isNull() & ~is_empty(column) & (F.lower(F.trim(text)) != "nan")
            problems.append(F.when(unreadable, shown))
    nothing = F.lit(None).cast("string")
    return Typed(F.struct(*values, F.lit(len(values)).alias("declared")), F.coalesce(*problems, nothing))


def with_attributes(rows: DataFrame, attributes: Sequence[Attribute], values: str) -> DataFrame:
    """Replaces the column ``values``, from :func:`typed_attributes`, by the map ``attributes``.

    The deciles of a ``numeric`` column are computed over these rows, exactly, in one pass for all of them. A value is
    ``"b/n"``: it lies in bin b of n. Bin b ends at the least number that at least b tenths of the numbers do not
    exceed; ends that coincide, as with fewer than ten different numbers, are one end.
    """
    numeric = [_raw(place) for place, attribute in enumerate(attributes) if attribute.kind == NUMERIC]
    ends = _bin_ends(rows, [F.col(values)[name].alias(name) for name in numeric])
    entries: list[Column] = []
    for place, attribute in enumerate(attributes):
        value = F.col(values)[_raw(place)]
        if attribute.kind == NUMERIC:
            value = _bin(value, ends[_raw(place)])
        if attribute.kind != MULTI:
            value = F.array(F.coalesce(value, F.lit(UNSEEN)))
        entries += [F.lit(attribute.name), value]
    return rows.withColumn(ATTRIBUTES, F.create_map(*entries).cast(TYPE)).drop(values)


def unknown_attributes(attributes: Sequence[Attribute]) -> Column:
    """The map of something that the file does not list."""
    entries: list[Column] = []
    for attribute in attributes:
        entries += [F.lit(attribute.name), F.array() if attribute.kind == MULTI else F.array(F.lit(UNSEEN))]
    return F.create_map(*entries).cast(TYPE)


def _raw(place: int) -> str:
    return f"attribute_{place}"


def _fits(column: T.DataType, kind: str) -> bool:
    if isinstance(column, T.ArrayType):
        return kind == MULTI and isinstance(column.elementType, T.AtomicType)
    if kind == NUMERIC:
        return is_number(column) or isinstance(column, T.StringType)
    return isinstance(column, T.StringType if kind == MULTI else T.AtomicType)


def _typed(column: str, type_: T.DataType, kind: str) -> Column:
    if kind == NUMERIC:
        return number(column)
    if kind == CATEGORICAL:
        return F.when(~is_empty(column), F.trim(F.col(column).cast("string")))
    if isinstance(type_, T.ArrayType):
        return distinct_names(F.col(column).cast("array<string>"))
    return distinct_names(F.split(F.col(column), r"\|"))


def _bin_ends(rows: DataFrame, numbers: Sequence[Column]) -> dict[str, list[float]]:
    """The inner ends of the bins of each column, ascending; none for a column without two different numbers."""
    if not numbers:
        return {}
    columns = rows.select(*numbers)
    tenths = ", ".join(f"{b / N_BINS}D" for b in range(1, N_BINS))
    found = columns.agg(
        *[F.expr(f"percentile_disc(array({tenths})) WITHIN GROUP (ORDER BY {c})").alias(c) for c in columns.columns],
        *[F.max(c).alias(f"most_{c}") for c in columns.columns],
    ).collect()[0]
    return {c: sorted({end for end in found[c] or () if end < found[f"most_{c}"]}) for c in columns.columns}


def _bin(value: Column, ends: Sequence[float]) -> Column:
    above = sum(((value > F.lit(end)).cast("int") for end in ends), start=F.lit(1))
    return F.when(value.isNotNull(), F.concat(above.cast("string"), F.lit(f"/{len(ends) + 1}")))
