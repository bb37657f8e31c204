"""The catalogue as a table: what the items file and the events say about every item."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.attributes import ATTRIBUTES, TYPE, Attribute, unknown_attributes
from fm_spark.events.tags import TAGS
from fm_spark.events.vocabulary import GENRE, ITEM


def catalogue_rows(
    histories: DataFrame,
    items: DataFrame | None,
    tags: DataFrame | None,
    attributes: Sequence[Attribute] = (),
    known: DataFrame | None = None,
) -> DataFrame:
    """Joins the items file with the items that have events.

    Args:
        histories: item_id, one row an event.
        items: item_id, title, genres, year, attributes; None without an items file.
        tags: item_id, tag, one row a tag that a user gave; None without them.
        attributes: those that the items file was read for.
        known: item_id, known, from :func:`~fm_spark.events.tags.known_tags`; None leaves them out.

    Returns:
        item_id, title (the id as text when there is none), genres, year, tags (distinct, most given first, then by
        name), count (bigint, 0 for an item without events), attributes, listed (whether the items file has it).
    """
    rows = histories.groupBy("item_id").agg(F.count(F.lit(1)).alias("count"))
    if items is not None:
        rows = rows.join(items.withColumn("listed", F.lit(True)), on="item_id", how="full_outer")
    else:
        rows = rows.select("*", F.lit("").alias("title"), F.array().cast("array<string>").alias("genres"),
                           F.lit(None).cast("int").alias("year"), F.lit(None).cast(TYPE).alias(ATTRIBUTES),
                           F.lit(False).alias("listed"))  # fmt: skip
    if tags is not None:
        rows = rows.join(_tag_lists(tags), on="item_id", how="left")
    else:
        rows = rows.withColumn("tags", F.lit(None))
    empty = F.array().cast("array<string>")
    values = F.coalesce(ATTRIBUTES, unknown_attributes(attributes))
    if known is not None:
        rows = rows.join(known, on="item_id", how="left")
        values = F.map_concat(values, F.create_map(F.lit(TAGS), F.coalesce("known", empty)))
    titled = F.coalesce(F.trim("title"), F.lit("")) != ""
    return rows.select(
        "item_id",
        F.when(titled, F.col("title")).otherwise(F.col("item_id").cast("string")).alias("title"),
        F.coalesce("genres", empty).alias("genres"),
        "year",
        F.coalesce("tags", empty).alias("tags"),
        F.coalesce("count", F.lit(0).cast("bigint")).alias("count"),
        values.alias(ATTRIBUTES),
        F.coalesce("listed", F.lit(False)).alias("listed"),
    )


def field_values(items: DataFrame) -> pd.DataFrame:
    """The field and value of the events' static features: items by ascending id, genres by name.

    Collected on the driver: they grow with the catalogue, not with users or events.
    """
    rows = items.select("item_id", "genres").toPandas()
    # pandas orders str by code point, as Spark does
    ids = rows["item_id"].sort_values(kind="stable").astype(str)
    genres = sorted({name for names in rows["genres"] for name in names})
    return pd.DataFrame({"field": [ITEM] * len(ids) + [GENRE] * len(genres), "value": [*ids, *genres]})


def _tag_lists(tags: DataFrame) -> DataFrame:
    counted = tags.groupBy("item_id", "tag").agg(F.count(F.lit(1)).alias("given"))
    by_use = F.array_sort(F.collect_list(F.struct((-F.col("given")).alias("less"), F.col("tag").alias("tag"))))
    return counted.groupBy("item_id").agg(F.transform(by_use, lambda entry: entry["tag"]).alias("tags"))
