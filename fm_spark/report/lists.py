"""The part of the report that shows rows: a few users with their lists, the clusters, the items."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from fm_spark.report.facts import ClusterFacts, ItemFacts, LikedItem, Recommended, UserLists
from fm_spark.report.pinned import Pinned, utc
from fm_spark.tables.contracts import CLUSTER_PROFILES, EVENTS, FM_PARAMETERS, ITEM_CLUSTERS, ITEMS, TOP_N

SHOWN_LIKED = 5
SHOWN_TOP = 10
MAPPED_ITEMS = 2000
"""Items on the cluster map, the best known ones; more would hide each other."""


def user_lists(pinned: Pinned, n_users: int) -> list[UserLists]:
    """A few users who liked something and have a list, spread by the length of their histories.

    The same data give the same users; fewer than ``n_users`` when there are no more.
    """
    chosen = _choose_users(pinned, n_users)
    if not chosen:
        return []
    ids = [user["user_id"] for user in chosen]
    newest = Window.partitionBy("user_id").orderBy(F.col("position").desc())
    liked = (
        pinned.read(EVENTS)
        .where(F.col("user_id").isin(ids) & (F.col("label") > 0))
        .withColumn("newest", F.row_number().over(newest))
        .where(F.col("newest") <= SHOWN_LIKED)
        .join(pinned.read(ITEMS).select("item_id", "title"), on="item_id", how="left")
        .select(
            "user_id",
            F.coalesce("title", F.col("item_id").cast("string")).alias("title"),
            F.unix_micros("time").alias("micros"),
            "value",
        )
        .orderBy("user_id", "newest")
        .collect()
    )
    top = (
        pinned.read(TOP_N)
        .where(F.col("user_id").isin(ids) & (F.col("rank") <= SHOWN_TOP))
        .select("user_id", "rank", "title", "score")
        .orderBy("user_id", "rank")
        .collect()
    )
    return [
        UserLists(
            user_id=str(user["user_id"]),
            events=user["n"],
            liked_events=user["liked"],
            liked=[
                LikedItem(r["title"], utc(r["micros"]), r["value"]) for r in liked if r["user_id"] == user["user_id"]
            ],
            top=[Recommended(r["rank"], r["title"], r["score"]) for r in top if r["user_id"] == user["user_id"]],
        )
        for user in chosen
    ]


def _choose_users(pinned: Pinned, n_users: int) -> list[Any]:
    """Rows (n, users, user_id, liked): the users at the middle of ``n_users`` equal parts by history length."""
    users = (
        pinned.read(EVENTS)
        .groupBy("user_id")
        .agg(F.count(F.lit(1)).alias("n"), F.sum((F.col("label") > 0).cast("bigint")).alias("liked"))
        .where(F.col("liked") > 0)
        .join(pinned.read(TOP_N).where(F.col("rank") == 1).select("user_id"), on="user_id", how="left_semi")
    )
    by_length = _first_by_length(users).collect()  # one row a length, not a user
    total = sum(row["users"] for row in by_length)
    chosen: list[Any] = []
    for part in range(min(n_users, total)):
        wanted = (part + 0.5) / n_users * total
        ends = np.cumsum([row["users"] for row in by_length])
        row = by_length[int(np.searchsorted(ends, wanted, side="right"))]
        if row["user_id"] in [user["user_id"] for user in chosen]:  # several parts fall on one length
            taken = F.col("user_id").isin([user["user_id"] for user in chosen])
            rest = _first_by_length(users.where(~taken)).orderBy(F.abs(F.col("n") - row["n"]), "n").first()
            if rest is None:
                break
            row = rest
        chosen.append(row)
    return sorted(chosen, key=lambda user: (user["n"], str(user["user_id"])))


def _first_by_length(users: DataFrame) -> DataFrame:
    return (
        users.groupBy("n")
        .agg(
            F.count(F.lit(1)).alias("users"),
            F.min("user_id").alias("user_id"),
            F.min_by("liked", "user_id").alias("liked"),
        )
        .orderBy("n")
    )


def cluster_facts(pinned: Pinned, n_clusters: int) -> list[ClusterFacts]:
    """The profiles of the largest clusters, largest first."""
    rows = pinned.read(CLUSTER_PROFILES).orderBy(F.col("size").desc(), "cluster_id").limit(n_clusters).collect()
    return [
        ClusterFacts(
            cluster_id=row["cluster_id"],
            size=row["size"],
            label=row["label"],
            genres=[(genre["name"], genre["lift"]) for genre in row["top_genres"]],
            tags=[(tag["name"], tag["lift"]) for tag in row["top_tags"]],
            exemplars=[item["title"] for item in row["exemplars"]],
        )
        for row in rows
    ]


def item_facts(pinned: Pinned) -> ItemFacts:
    """Events and lists of every item, and the vectors and clusters of the best known ones; grows with the catalogue."""
    listed = pinned.read(TOP_N).groupBy("item_id").agg(F.count(F.lit(1)).alias("listed"))
    items = pinned.read(ITEMS).select("item_id", "count", "genres")
    counts = (
        items.join(listed, on="item_id", how="left").select("count", F.coalesce("listed", F.lit(0)).alias("listed"))
    ).toPandas()
    mapped = (
        items.join(pinned.read(ITEM_CLUSTERS).select("item_id", "cluster_id"), on="item_id", how="inner")
        .orderBy(F.col("count").desc(), "item_id")
        .limit(MAPPED_ITEMS)
        .select(F.col("item_id").cast("string").alias("id"), "genres", "cluster_id")
        .join(_vectors(pinned, "item").withColumnRenamed("value", "id"), on="id", how="inner")
        .select("cluster_id", "genres", "factors")
    ).toPandas()
    return ItemFacts(
        count=counts["count"].to_numpy(dtype=np.int64),
        listed=counts["listed"].to_numpy(dtype=np.int64),
        map_vectors=_composed(mapped, _vectors(pinned, "genre").toPandas()),
        map_clusters=mapped["cluster_id"].to_numpy(dtype=np.int64),
    )


def _vectors(pinned: Pinned, field: str) -> DataFrame:
    """Columns value, factors of one field of the published model."""
    of_model = F.col("model_version") == F.lit(pinned.publication.model_version)
    return pinned.read(FM_PARAMETERS).where(of_model & (F.col("field") == F.lit(field))).select("value", "factors")


def _composed(items: pd.DataFrame, genres: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Item vectors: the item's own and those of its n genres, each times 1 / sqrt(n)."""
    of_genre = {value: np.asarray(factors) for value, factors in zip(genres["value"], genres["factors"], strict=True)}
    rows = []
    for own, names in zip(items["factors"], items["genres"], strict=True):
        known = [of_genre[name] for name in names if name in of_genre]
        rows.append(np.asarray(own) + sum(known, start=np.zeros(len(own))) / np.sqrt(max(len(names), 1)))
    return np.array(rows, dtype=np.float32).reshape(len(rows), -1)
