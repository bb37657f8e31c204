"""Pairs of users and items out of a CSV, Parquet or Delta, with all their other columns and their order."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.config import Config
from fm_spark.errors import InputError
from fm_spark.events.files import Entry, first_line
from fm_spark.events.generic import open_table
from fm_spark.events.layouts import GenericLayout, find_entries, generic_layout
from fm_spark.events.parsing import is_empty, whole_number
from fm_spark.events.sources import MALFORMED, PLACE, PROBLEM, csv_source, place

USER, ITEM, PAYLOAD = "user_id", "_item", "_payload"
_FRACTIONS = (T.FloatType, T.DoubleType, T.DecimalType)
_EXAMPLES = 5


@dataclass(frozen=True)
class Pairs:
    """What was read.

    Attributes:
        rows: :data:`USER` and :data:`ITEM` in the types of the events (null: no such id can be), :data:`PLACE`, and
            :data:`PAYLOAD`, a struct of the input's columns as they were, ``c0``, ``c1``, ...
        columns: the names of those columns.
        entries: the files and folders; count: the rows.
    """

    rows: DataFrame
    columns: tuple[str, ...]
    name: str
    entries: tuple[Entry, ...]
    count: int


def read_pairs(spark: SparkSession, config: Config, key: str, path: str, types: dict[str, T.DataType]) -> Pairs:
    """Reads ``path``; nothing is left out.

    Args:
        key: the configuration key that names the path, for messages.
        types: of user_id and item_id in the events.

    Raises:
        InputError: nothing there, an unknown form, a missing column, or lines with a wrong number of fields.
    """
    entries = find_entries(spark, path, key)
    layout = generic_layout(spark, entries, None)
    if layout is None:
        raise InputError(f"{key} = {path!r} is neither a CSV file, a Parquet file or folder, nor a Delta table")
    if layout.format == "csv":
        name, columns, rows, count = _csv(spark, layout, config)
    else:
        name, columns, rows = _table(spark, layout)
        count = rows.count()
    own = {}
    for role, column in ((USER, config.score.user_column), (ITEM, config.score.item_column)):
        which = "user" if role == USER else "item"
        if column not in columns:
            raise InputError(
                f"{name} has no column {column!r}; it has {', '.join(columns)}; set score.{which}_column to one of them"
            )
        raw = f"c{columns.index(column)}"
        own[role] = _parsed(raw, rows.schema[raw].dataType, types[f"{which}_id"], name)
    payload = F.struct(*[F.col(f"c{i}") for i in range(len(columns))])
    found = rows.select(*[column.alias(role) for role, column in own.items()], PLACE, payload.alias(PAYLOAD))
    return Pairs(found, tuple(columns), name, tuple(entries), count)


def _csv(spark: SparkSession, layout: GenericLayout, config: Config) -> tuple[str, list[str], DataFrame, int]:
    delimiter = config.input.delimiter
    headers = {file.shown: first_line(spark, file) for file in layout.entries}
    named = {
        file: [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        for file, line in headers.items()
        if line is not None
    }
    first, columns = next(iter(named.items()), ("", []))
    other = next((file for file, names in named.items() if names != columns), None)
    if other is not None:
        raise InputError(f"{other} has the columns {', '.join(named[other])}, {first} has {', '.join(columns)}")
    source = csv_source(spark, layout.entries, {f"c{i}": c for i, c in enumerate(columns)}, delimiter, {})
    rows = source.placed()
    count, bad = rows.agg(F.count(F.lit(1)), F.count_if(F.col(MALFORMED))).collect()[0]
    if bad:
        problem = F.when(F.col(MALFORMED), "wrong number of fields")
        shown = "\n  ".join(source.examples(lambda raw: raw.withColumn(PROBLEM, problem), _EXAMPLES))
        raise InputError(f"{source.name}: {bad:,} lines have a wrong number of fields; the first:\n  {shown}")
    return source.name, columns, rows, count


def _table(spark: SparkSession, layout: GenericLayout) -> tuple[str, list[str], DataFrame]:
    name, table = open_table(spark, layout)
    columns = list(table.columns)
    quoted = ["`" + column.replace("`", "``") + "`" for column in columns]
    return name, columns, table.select(*[F.col(q).alias(f"c{i}") for i, q in enumerate(quoted)], place().alias(PLACE))


def _parsed(raw: str, given: T.DataType, wanted: T.DataType, name: str) -> Column:
    """The id in the type of the events; null where there is none, or none of that type."""
    if not isinstance(given, T.AtomicType):
        raise InputError(f"{name}: a column of ids has the type {given.simpleString()}; ids are whole numbers or text")
    if isinstance(wanted, T.StringType):
        return F.when(~is_empty(raw), F.col(raw).cast("string"))
    if isinstance(given, _FRACTIONS):  # whole numbers that some tool has made fractions of
        return F.when(F.col(raw) == F.floor(F.col(raw)), whole_number(raw))
    return whole_number(raw)
