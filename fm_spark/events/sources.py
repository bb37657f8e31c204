"""Rows as they lie in the input, before anything is made of them, and where in it a bad row is."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import InputError
from fm_spark.events.files import Entry, first_line

PROBLEM = "_problem"
MALFORMED = "_malformed"
PLACE = "_place"
"""Where a row lies in its files; rows sort by it in the order in which they stand there."""
Shape = Callable[[DataFrame], DataFrame]


def place() -> Column:
    """:data:`PLACE` of the rows of files that are being read: file, block of the file, row of the block.

    Rows of a block lie in one partition, in their order; the numbers are compared within a block only.
    """
    parts = F.col("_metadata.file_path"), F.col("_metadata.file_block_start"), F.monotonically_increasing_id()
    return F.struct(*[part.alias(name) for part, name in zip(parts, ("file", "block", "row"), strict=True)])


class Source(Protocol):
    """Rows with raw columns and a boolean ``_malformed``."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def read(self) -> DataFrame:
        """Every row."""

    def examples(self, shape: Shape, n: int) -> list[str]:
        """The first n rows for which ``shape`` sets ``_problem``, as text with the place and the problem."""


@dataclass(frozen=True)
class TextSource:
    """Text files, one row a line.

    Attributes:
        parse: the line (string) -> struct with the raw columns as strings and ``_malformed``.
        headers: lines that are column names, not rows.
        encoding: of the files.
    """

    spark: SparkSession
    files: tuple[Entry, ...]
    parse: Callable[[Column], Column]
    headers: tuple[str, ...] = ()
    encoding: str = "UTF-8"

    @property
    def name(self) -> str:
        """The file, or the first one and how many more there are."""
        more = f" (and {len(self.files) - 1} more files)" if len(self.files) > 1 else ""
        return f"{self.files[0].shown}{more}"

    def read(self) -> DataFrame:
        """Every line that is neither blank nor a header, parsed."""
        return self._parsed(self.spark.read.text(self._patterns()).withColumnRenamed("value", "_text"))

    def placed(self) -> DataFrame:
        """Every row, with its :data:`PLACE`."""
        lines = self.spark.read.text(self._patterns()).select(F.col("value").alias("_text"), place().alias(PLACE))
        return self._parsed(lines, keep=(PLACE,))

    def examples(self, shape: Shape, n: int) -> list[str]:
        """See :class:`Source`; the place is the file and its line, counted from 1.

        A second pass over the files, made only when there is something to show: Spark reads a file in blocks, so a
        line's number is its place in its block plus the lines of the blocks before.
        """
        lines = self.spark.read.text(self._patterns()).select(
            F.col("value").alias("_text"),
            F.col("_metadata.file_path").alias("_file"),
            F.col("_metadata.file_block_start").alias("_block"),
            # increases by 1 from line to line of a block; only used as a difference within a block
            F.monotonically_increasing_id().alias("_line"),
        )
        place = ["_file", "_block", "_line"]
        shaped = shape(self._parsed(lines, keep=("_text", *place)))
        # a file's header line that another file does not have as its own passes as a bad row
        found = shaped.where(F.col(PROBLEM).isNotNull()).orderBy(*place).limit(n).collect()
        files = list({row["_file"] for row in found})
        blocks = (
            lines.where(F.col("_file").isin(files))
            .groupBy("_file", "_block")
            .agg(F.min("_line").alias("first"), F.count(F.lit(1)).alias("lines"))
            .collect()
        )
        shown = []
        for row in found:
            before = sum(b["lines"] for b in blocks if b["_file"] == row["_file"] and b["_block"] < row["_block"])
            own = next(b for b in blocks if (b["_file"], b["_block"]) == (row["_file"], row["_block"]))
            name = unquote(row["_file"]).rsplit("/", 1)[-1]
            line = before + row["_line"] - own["first"] + 1
            shown.append(f"{name} line {line}: {_shortened(row['_text'])} ({row[PROBLEM]})")
        return shown

    def _patterns(self) -> list[str]:
        return [file.pattern for file in self.files]

    def _parsed(self, lines: DataFrame, keep: Sequence[str] = ()) -> DataFrame:
        text = F.col("_text")
        if self.encoding != "UTF-8":
            # Spark's text source hands the bytes of a line through as they are
            text = F.decode(text.cast("binary"), self.encoding)
        real = F.trim(F.col("_text")) != ""
        if self.headers:
            real = real & ~F.col("_text").isin(*self.headers)
        rows = lines.where(real).withColumn("_text", text)
        return rows.select(*keep, self.parse(F.col("_text")).alias("_row")).select(*keep, "_row.*")


@dataclass(frozen=True)
class TableSource:
    """Rows with columns of their own types (Parquet, Delta)."""

    rows: DataFrame
    name: str

    def read(self) -> DataFrame:
        """Every row."""
        return self.rows.withColumn(MALFORMED, F.lit(False))

    def examples(self, shape: Shape, n: int) -> list[str]:
        """See :class:`Source`; ordered by their content, as such rows have no line numbers."""
        raw = F.to_json(F.struct(*[F.col(name) for name in self.rows.columns]))
        found = shape(self.read().withColumn("_raw", raw)).where(F.col(PROBLEM).isNotNull())
        rows = found.select("_raw", PROBLEM).orderBy("_raw", PROBLEM).limit(n).collect()
        return [f"{_shortened(row['_raw'])} ({row[PROBLEM]})" for row in rows]


def csv_source(
    spark: SparkSession, files: Sequence[Entry], columns: Mapping[str, str], delimiter: str, keys: Mapping[str, str]
) -> TextSource:
    """Delimited text with a header; quoted fields may hold delimiters and doubled quotes, but no line breaks.

    Args:
        columns: raw column to make -> column of the file to take.
        keys: raw column -> configuration key that names the file's column, for messages; empty for fixed layouts.

    Raises:
        InputError: every file is empty, a column is missing, or the files have different columns.
    """
    headers = {file: first_line(spark, file) for file in files}
    filled = {file: line for file, line in headers.items() if line is not None}
    if not filled:
        raise InputError(f"{files[0].shown} is empty; it must hold a header line and rows")
    names = {file: [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
             if line else [] for file, line in filled.items()}  # fmt: skip
    first = next(iter(names))
    for file, own in names.items():
        _check_header(file, own, columns, keys, delimiter)
        if own != names[first]:
            raise InputError(
                f"{file.shown} has the columns {', '.join(own)}, {first.name} has {', '.join(names[first])}"
            )
    width = len(names[first])
    schema = ", ".join([f"c{i} string" for i in range(width)] + ["_corrupt string"])
    options = {
        "sep": delimiter,
        "quote": '"',
        "escape": '"',
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": "_corrupt",
    }

    def parse(line: Column) -> Column:
        fields = F.from_csv(line, schema, options)
        taken = [fields[f"c{names[first].index(column)}"].alias(raw) for raw, column in columns.items()]
        return F.struct(*taken, fields["_corrupt"].isNotNull().alias(MALFORMED))

    return TextSource(spark, tuple(filled), parse, tuple(set(filled.values())))


def _check_header(
    file: Entry, found: Sequence[str], columns: Mapping[str, str], keys: Mapping[str, str], delimiter: str
) -> None:
    for raw, column in columns.items():
        if column not in found:
            as_published = (
                "give the file as MovieLens published it; for events of your own set input.format to csv, and "
                "input.user_column, input.item_column, input.time_column and input.value_column"
            )
            cure = f"set {keys[raw]} to one of them" if raw in keys else as_published
            split = f" (split at {delimiter!r})" if len(found) == 1 else ""
            raise InputError(
                f"{file.shown} has no column {column!r}; its header has {', '.join(found) or 'no names'}{split}; {cure}"
            )
        if found.count(column) > 1:
            raise InputError(f"{file.shown} has {found.count(column)} columns named {column!r}; keep one of them")


def separated_source(spark: SparkSession, file: Entry, columns: Sequence[str], separator: str) -> TextSource:
    """Lines of fields between separators, without header or quotes; ``separator`` is a regular expression."""

    def parse(line: Column) -> Column:
        fields = F.split(line, separator)
        taken = [F.get(fields, i).alias(column) for i, column in enumerate(columns)]
        return F.struct(*taken, (F.size(fields) != len(columns)).alias(MALFORMED))

    return TextSource(spark, (file,), parse)


def pattern_source(spark: SparkSession, file: Entry, columns: Sequence[str], pattern: str, encoding: str) -> TextSource:
    """Lines taken apart by a regular expression with one group a column."""

    def parse(line: Column) -> Column:
        taken = [F.regexp_extract(line, pattern, i + 1).alias(column) for i, column in enumerate(columns)]
        return F.struct(*taken, (~line.rlike(pattern)).alias(MALFORMED))

    return TextSource(spark, (file,), parse, encoding=encoding)


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
