"""From typed events to user histories: one event a user and item, in order, labelled."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F


def user_order() -> WindowSpec:
    """A user's events by time; events of the same time by item id, so that the order never depends on partitioning."""
    return Window.partitionBy("user_id").orderBy("time", "item_id")


def whole_history() -> WindowSpec:
    """All events of the user. Ordered like :func:`user_order`, so that Spark sorts once for both."""
    return user_order().rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)


def histories(events: DataFrame, positive_threshold: float | None) -> DataFrame:
    """Drops duplicates, orders and labels.

    Of several events of one (user, item) the latest stays; of those at the same time the one with the largest value,
    then the largest weight. A row that equals another in all columns is an exact duplicate.

    Args:
        events: user_id, item_id, time, value, weight.
        positive_threshold: an event is liked when its value is at least this; None likes every event.

    Returns:
        The columns of ``events`` and: label (double, 0 or 1), position (int, 0-based place in the history),
        tied (int, 1 when the user's event before has the same time), copies and older (int, exact duplicates and
        other earlier events of the same user and item that this one stands for). What precedes an event depends on
        no later event, except through a later event of the same user and item, which replaces it.
    """
    # one shuffle: both windows below are satisfied by rows that lie together by user
    by_user = events.repartition(F.col("user_id"))
    single = _latest(by_user)
    order = user_order()
    label = F.lit(1.0) if positive_threshold is None else (F.col("value") >= positive_threshold).cast("double")
    return single.select(
        "*",
        label.alias("label"),
        (F.row_number().over(order) - 1).alias("position"),
        F.coalesce(F.lag("time").over(order) == F.col("time"), F.lit(False)).cast("int").alias("tied"),
    )


def _latest(events: DataFrame) -> DataFrame:
    order = Window.partitionBy("user_id", "item_id").orderBy("time", "value", "weight")
    same: Column = F.lit(True)
    for name in ("time", "value", "weight"):
        same = same & (F.lag(name).over(order) == F.col(name))
    ranked = events.select(
        "*",
        F.coalesce(same, F.lit(False)).cast("int").alias("_copy"),
        F.row_number().over(order).alias("_row"),
        F.lead(F.lit(1)).over(order).isNull().alias("_last"),
    )
    counted = ranked.withColumn(
        "copies", F.sum("_copy").over(order.rowsBetween(Window.unboundedPreceding, Window.currentRow)).cast("int")
    )
    return counted.where("_last").select(
        *events.columns, "copies", (F.col("_row") - 1 - F.col("copies")).alias("older")
    )
