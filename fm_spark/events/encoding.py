"""The sparse feature vector of an event's static fields."""

from __future__ import annotations

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.vocabulary import GENRE, ITEM


def encode_items(items: DataFrame, vocabulary: pd.DataFrame) -> DataFrame:
    """Adds item_feature (int) and the item's vector: indices (array<int>, ascending) and values (array<float>).

    The item is one-hot with value 1; its n genres are multi-hot with value 1/sqrt(n) each.

    Args:
        items: item_id, genres and any other columns.
        vocabulary: field, value, feature; holds every item and genre of ``items``.
    """
    spark = items.sparkSession
    of_items = vocabulary[vocabulary["field"] == ITEM]
    own = spark.createDataFrame(of_items[["value", "feature"]], "_value string, item_feature int")
    joined = items.withColumn("_value", F.col("item_id").cast("string")).join(F.broadcast(own), on="_value", how="left")
    # one row: the genres are few, and a map needs no shuffle of the items
    of_genres = vocabulary[vocabulary["field"] == GENRE]
    index = dict(zip(of_genres["value"], of_genres["feature"].tolist(), strict=True))
    genre = spark.createDataFrame([(index,)], "_genres map<string, int>")
    share = (1.0 / F.sqrt(F.size("genres"))).cast("float")
    one = F.struct(F.col("item_feature").alias("i"), F.lit(1.0).cast("float").alias("x"))
    hot = F.transform("genres", lambda name: F.struct(F.col("_genres")[name].alias("i"), share.alias("x")))
    vector = F.array_sort(F.concat(F.array(one), hot))
    return (
        joined.crossJoin(F.broadcast(genre))
        .withColumn("_vector", vector)
        .withColumns({"indices": F.col("_vector.i"), "values": F.col("_vector.x")})
        .drop("_value", "_genres", "_vector")
    )


def encode_events(histories: DataFrame, items: DataFrame) -> DataFrame:
    """Gives every event the item_feature, indices and values of its item, from :func:`encode_items`."""
    features = items.select("item_id", "item_feature", "indices", "values")
    return histories.join(F.broadcast(features), on="item_id", how="left")
