"""Which events are held out for the test: three ways to cut, as columns over user histories.

Every function takes the rows of :func:`fm_spark.events.cleaning.histories` and adds ``split``: ``test`` (a held-out
positive), ``train`` (what the evaluated model may learn from) or ``unused`` (neither). A user with fewer than
``min_positives`` positives is never tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from fm_spark.config_sections import EventsConfig
from fm_spark.events.cleaning import user_order, whole_history

# widths of the intervals in which the cut of the time axis is searched: a year, a day, an hour, a second, 1 us
_WIDTHS = (365 * 86_400_000_000, 86_400_000_000, 3_600_000_000, 1_000_000, 1)


def add_split(histories: DataFrame, config: EventsConfig) -> DataFrame:
    """Cuts the way that ``events.split`` names."""
    ways: dict[str, Callable[[], DataFrame]] = {
        "user_time": lambda: user_time(histories, config.test_fraction, config.min_positives),
        "global_time": lambda: global_time(histories, time_cut(histories, config.test_fraction), config.min_positives),
        "random": lambda: random(histories, config.test_fraction, config.min_positives, config.seed),
    }
    return ways[config.split]()


def user_time(histories: DataFrame, test_fraction: float, min_positives: int) -> DataFrame:
    """Holds out the last positives of every user.

    With n positives those of rank >= floor((1 - test_fraction) n), 0-based by time then item id, are ``test``; events
    before the first of them are ``train``; other later ones are ``unused``. Users not tested are all ``train``.
    """
    rank = F.sum("label").over(user_order().rowsBetween(Window.unboundedPreceding, Window.currentRow)) - 1
    counted = histories.withColumns({"_rank": rank, "_n": F.sum("label").over(whole_history())})
    held = counted.withColumn("_held", _liked() & _held_out(F.col("_rank"), F.col("_n"), test_fraction, min_positives))
    first = F.min(F.when(F.col("_held"), F.col("position"))).over(whole_history())
    before = F.col("_first").isNull() | (F.col("position") < F.col("_first"))
    split = F.when(F.col("_held"), "test").when(before, "train").otherwise("unused")
    return held.withColumn("_first", first).withColumn("split", split).drop("_rank", "_n", "_held", "_first")


def global_time(histories: DataFrame, cut: int, min_positives: int) -> DataFrame:
    """Cuts everyone's history at one time (microseconds since 1970, see :func:`time_cut`).

    Events up to and at the cut are ``train``. Later positives are ``test`` when their user has a training event and,
    in all, at least ``min_positives`` positives; other later events are ``unused``.
    """
    early = F.unix_micros("time") <= F.lit(cut)
    known = F.max(early).over(whole_history())
    many = F.sum("label").over(whole_history()) >= min_positives
    split = F.when(early, "train").when(_liked() & known & many, "test").otherwise("unused")
    return histories.withColumn("split", split)


def random(histories: DataFrame, test_fraction: float, min_positives: int, seed: int) -> DataFrame:
    """Holds out each user's positives of rank >= floor((1 - test_fraction) n) by a hash of (seed, user, item).

    Everything else is ``train``, also what came later than a held-out event: this split ignores time.
    """
    key = F.xxhash64(F.lit(seed).cast("bigint"), F.col("user_id"), F.col("item_id"))
    by_hash = Window.partitionBy("user_id", "label").orderBy("_key", "item_id")
    ranked = histories.withColumn("_key", key).withColumns(
        {"_rank": F.row_number().over(by_hash) - 1, "_n": F.sum("label").over(Window.partitionBy("user_id", "label"))}
    )
    held = _liked() & _held_out(F.col("_rank"), F.col("_n"), test_fraction, min_positives)
    return ranked.withColumn("split", F.when(held, "test").otherwise("train")).drop("_key", "_rank", "_n")


def time_cut(histories: DataFrame, test_fraction: float) -> int:
    """The least time, in microseconds since 1970, with at least (1 - test_fraction) of the events at or before it.

    Events of the same time so stay together, on the early side.

    Exact and the same for any partitioning: events are counted in intervals that narrow down to a microsecond, so the
    driver never holds more than a few thousand counts. ``histories`` must not be empty.
    """
    micros = histories.select(F.unix_micros("time").alias("micros"))
    events = histories.count()
    wanted = max(1, math.floor(round((1.0 - test_fraction) * events, 6)))
    before, low, high = 0, 0, 0
    for step, width in enumerate(_WIDTHS):
        part = micros if step == 0 else micros.where(F.col("micros").between(low, high))
        counts = part.groupBy(F.floor(F.col("micros") / width).alias("bin")).count().orderBy("bin").collect()
        for row in counts:
            low = int(row["bin"]) * width
            high = low + width - 1
            if before + row["count"] >= wanted:
                break
            before += row["count"]
    return low


def _liked() -> Column:
    return F.col("label") == 1


def _held_out(rank: Column, n: Column, test_fraction: float, min_positives: int) -> Column:
    # rounded before the floor: 0.8 * 5 must be 4 and 0.1 * 10 must be 1 in binary fractions too
    first = F.floor(F.round(F.lit(1.0 - test_fraction) * n, 6))
    return (n >= min_positives) & (rank >= first)
