"""Files with one row a thing (an item, a user): bad rows refused or left out, one row of each thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.quality import MAX_EXAMPLES, Finding
from fm_spark.events.rows import refuse
from fm_spark.events.sources import PROBLEM, Shape, Source


class Listed(NamedTuple):
    """The things that a file lists.

    Attributes:
        rows: the id and the kept columns, one row a thing.
        again: further rows of things that are listed already; twice: up to five such things, as text.
    """

    rows: DataFrame
    findings: list[Finding]
    again: int
    twice: tuple[str, ...]


def listed_once(source: Source, shape: Shape, thing: str, kept: Sequence[str], policy: str) -> Listed:
    """Of a thing listed twice the row stays whose ``kept`` columns, compared in their order, are least.

    Args:
        shape: adds the column ``<thing>_id``, those of ``kept``, and ``_problem``.
        thing: item or user.
        policy: ``input.bad_rows``: fail or drop.

    Raises:
        InputError: rows cannot be read, under ``fail``.
    """
    name = f"{thing}_id"
    # min over structs compares the fields in order, so that the choice does not depend on the order of rows
    first = F.min(F.struct(*kept)).alias("_first")
    known = F.when(F.col(PROBLEM).isNull(), F.col(name)).alias(name)
    rows = shape(source.read()).groupBy(known).agg(first, F.count(F.lit(1)).alias("_rows"))
    listed = F.col(name).isNotNull()
    found = rows.agg(
        F.coalesce(F.sum("_rows"), F.lit(0)).alias("rows"),
        F.coalesce(F.sum(F.when(~listed, F.col("_rows"))), F.lit(0)).alias("bad"),
        F.coalesce(F.sum(F.when(listed, F.col("_rows") - 1)), F.lit(0)).alias("again"),
    ).collect()[0]
    if found["bad"] and policy == "fail":
        refuse(source, shape, found["bad"], found["rows"])
    things, shown = rows.where(listed), []
    if found["again"]:
        shown = things.where("_rows > 1").orderBy(name).limit(MAX_EXAMPLES).collect()
    twice = tuple(f"{thing} {row[name]}: {row['_rows']} rows" for row in shown)
    again = f"further rows of the {thing}s file for {'an' if thing == 'item' else 'a'} {thing} that it lists already"
    examples = tuple(source.examples(shape, MAX_EXAMPLES)) if found["bad"] else ()
    findings = [
        Finding(f"unreadable_{thing}s", found["bad"], "dropped", f"rows of the {thing}s file that cannot be read",
                examples),
        Finding(f"duplicate_{thing}s", found["again"], "dropped", again, twice),
    ]  # fmt: skip
    return Listed(things.select(name, "_first.*"), findings, found["again"], twice)
