"""Tags as features of items: those that were given before the test starts."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

TAGS = "__tags__"
"""Their name among the attributes of an item."""
MIN_ITEMS = 5
"""A tag that fewer items have is left out: it would tell its few items apart, which their own rows do."""


def known_tags(tags: DataFrame, events: DataFrame) -> DataFrame:
    """The tags of each item that a model may know whose test part is that of the events.

    A tag counts when it was given before the first test event of its giver. All tags of a user without a test part
    count; a giver without any event has only those that he gave before the first test event of all users.

    Args:
        tags: user_id, item_id, tag, time (null when it cannot be read, as if it were late); one row a tag given.
        events: user_id, time, split.

    Returns:
        item_id, known (array<string>, distinct, sorted): items with a tag that counts and that at least
        :data:`MIN_ITEMS` items have.
    """
    held_out = F.when(F.col("split") == "test", F.col("time"))
    cuts = events.groupBy("user_id").agg(F.min(held_out).alias("_first"), F.lit(True).alias("_has_events"))
    earliest = cuts.agg(F.min("_first").alias("_earliest"))
    given = tags.join(cuts, on="user_id", how="left").crossJoin(F.broadcast(earliest))
    own = F.when(F.col("_has_events"), F.col("_first")).otherwise(F.col("_earliest"))
    untested = F.col("_has_events") & F.col("_first").isNull()
    counting = given.where(untested | (F.col("time") < own)).select("item_id", "tag").distinct()
    common = counting.groupBy("tag").agg(F.count(F.lit(1)).alias("_items")).where(F.col("_items") >= MIN_ITEMS)
    lists = counting.join(common, on="tag", how="left_semi").groupBy("item_id")
    return lists.agg(F.array_sort(F.collect_list("tag")).alias("known"))
