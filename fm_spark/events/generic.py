"""Events of any origin: CSV, Parquet or Delta with the columns named in the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.config_sections import InputConfig
from fm_spark.errors import InputError
from fm_spark.events.attributes import Attribute, raw_columns
from fm_spark.events.layouts import KNOWN, GenericLayout, find_entries, generic_layout
from fm_spark.events.parsing import genre_names, is_empty, split_genres, whole_number
from fm_spark.events.rows import EventShape, integer_ids
from fm_spark.events.sources import MALFORMED, PROBLEM, Source, TableSource, csv_source


def events_source(spark: SparkSession, layout: GenericLayout, config: InputConfig) -> Source:
    """The events, raw columns ``user, item, time`` and, when configured, ``value, weight``.

    Raises:
        InputError: empty file, missing column, or a table that cannot be read.
    """
    return rows_source(spark, layout, _event_columns(config), {raw: f"input.{raw}_column" for raw in _RAW}, config)


def events_shape(source: Source, config: InputConfig) -> EventShape:
    """How the configuration wants the rows of :func:`events_source` to be read.

    Raises:
        InputError: an id column of a type that cannot identify anything.
    """
    value_range = (config.value_range[0], config.value_range[1]) if config.value_range else None
    ids = integer_ids(source, config.id_type)
    return EventShape(_event_columns(config), ids, config.time_unit, value_range if config.value_column else None)


def items_source(spark: SparkSession, config: InputConfig, attributes: Sequence[Attribute] = ()) -> Source | None:
    """The items, raw columns ``item, title`` and, when configured, ``genres, year``; None without ``items_path``.

    Args:
        attributes: further columns of the file.

    Raises:
        InputError: nothing there, unknown format, empty file or missing column.
    """
    if not config.items_path:
        if attributes:
            raise InputError(
                f"input.item_columns = {config.item_columns} needs a file of items; give its path as input.items_path"
            )
        return None
    entries = find_entries(spark, config.items_path, "input.items_path")
    layout = generic_layout(spark, entries, None)
    if layout is None:
        raise InputError(f"input.items_path = {config.items_path!r} is neither CSV, Parquet nor Delta")
    optional = {"genres": config.items_genres_column, "year": config.items_year_column}
    columns = {"item": config.items_id_column, "title": config.items_title_column} | {
        raw: column for raw, column in optional.items() if column
    }
    keys = {"item": "input.items_id_column"} | {raw: f"input.items_{raw}_column" for raw in ("title", "genres", "year")}
    further = raw_columns(attributes)
    columns, keys = columns | further, keys | dict.fromkeys(further, "input.item_columns")
    return rows_source(spark, layout, columns, keys, config)


def items_shape(raw: DataFrame, integer: bool) -> DataFrame:
    """item_id, title, genres, year of the rows of :func:`items_source`, and ``_problem``."""
    kinds = {f.name: f.dataType for f in raw.schema}
    item = whole_number("item") if integer else F.when(~is_empty("item"), F.col("item").cast("string"))
    genres: Column = F.array().cast("array<string>")
    if "genres" in kinds:
        listed = isinstance(kinds["genres"], T.ArrayType)
        genres = genre_names(F.col("genres")) if listed else split_genres(F.col("genres").cast("string"))
    year = F.expr("try_cast(`year` as int)") if "year" in kinds else F.lit(None).cast("int")
    bad_year = (~is_empty("year") & year.isNull()) if "year" in kinds else F.lit(False)
    wanted = "the id is no whole number (the events' ids are)" if integer else "the id is empty"
    problem = F.when(F.col(MALFORMED), "wrong number of fields").when(item.isNull(), wanted)
    return raw.withColumns(
        {
            "item_id": item,
            "title": F.col("title").cast("string"),
            "genres": genres,
            "year": year,
            PROBLEM: problem.when(bad_year, "the year is no whole number"),
        }
    )


_RAW = ("user", "item", "time", "value", "weight")


def _event_columns(config: InputConfig) -> dict[str, str]:
    named = {raw: str(getattr(config, f"{raw}_column")) for raw in _RAW}
    return {raw: column for raw, column in named.items() if column}


def rows_source(
    spark: SparkSession, layout: GenericLayout, columns: Mapping[str, str], keys: Mapping[str, str], config: InputConfig
) -> Source:
    """Rows of a CSV, Parquet or Delta.

    Args:
        columns: raw column to make -> column of the file; keys: raw column -> key that names it, for messages.

    Raises:
        InputError: empty file, missing column, or a table that cannot be read.
    """
    if layout.format == "csv":
        return csv_source(spark, layout.entries, columns, config.delimiter, keys)
    name, table = open_table(spark, layout, f"; known layouts: {KNOWN}")
    for raw, column in columns.items():
        if column not in table.columns:
            raise InputError(
                f"{name} has no column {column!r}; it has {', '.join(table.columns)}; set {keys[raw]} to one of them"
            )
    quoted = {raw: "`" + column.replace("`", "``") + "`" for raw, column in columns.items()}
    return TableSource(table.select(*[F.col(column).alias(raw) for raw, column in quoted.items()]), name)


def open_table(spark: SparkSession, layout: GenericLayout, hint: str = "") -> tuple[str, DataFrame]:
    """What a Parquet or Delta table is called in messages, and the table.

    Args:
        hint: what else the message says when it cannot be read.

    Raises:
        InputError: it cannot be read.
    """
    name = layout.entries[0].shown
    try:
        if layout.format == "delta":
            return name, spark.read.format("delta").load(layout.entries[0].uri)
        return name, spark.read.parquet(*[entry.pattern for entry in layout.entries])
    except AnalysisException as error:
        raise InputError(f"{name} cannot be read as {layout.format} ({str(error).splitlines()[0]}){hint}") from error
