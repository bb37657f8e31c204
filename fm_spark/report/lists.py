"""The part of the report that shows rows: a few users with their lists, the clusters, the items."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
from pyspark.sql import Row
from pyspark.sql import functions as F

from fm_spark.events.catalogue import Catalogue, load_catalogue
from fm_spark.named_lists import DEFAULT
from fm_spark.report.facts import ClusterFacts, ClusterLine, ItemFacts, LikedItem, Recommended, UserLists
from fm_spark.report.pinned import Pinned
from fm_spark.tables.contracts import (
    CLUSTER_CHANGES,
    CLUSTER_PROFILES,
    EVENTS,
    FM_PARAMETERS,
    ITEM_CLUSTERS,
    ITEMS,
    TOP_N,
)
from fm_spark.training.features import ITEM, ITEM_SIDE, OF_COLUMN, item_features, ordered_fields

SHOWN_LIKED = 5
SHOWN_TOP = 10
MAPPED_ITEMS = 2000
"""Items on the cluster map, the best known ones; more would hide each other."""


def history_lengths(pinned: Pinned) -> list[Row]:
    """Sums over the users of each history length, shortest first: one row a length, not a user.

    Columns: n (events of such a user), users, events, positives, test_events, first and last (microseconds since
    1970), with_liked (users who liked something), user_id and liked (the smallest id among those, and how many items
    that user liked).
    """
    positive = (F.col("label") > 0).cast("bigint")
    by_user = (
        pinned.read(EVENTS)
        .groupBy("user_id")
        .agg(
            F.count(F.lit(1)).alias("n"),
            F.sum(positive).alias("liked"),
            F.sum((F.col("split") == "test").cast("bigint")).alias("test_events"),
            F.min("time").alias("first"),
            F.max("time").alias("last"),
        )
        .withColumn("eligible", F.when(F.col("liked") > 0, F.col("user_id")))
    )
    by_length = by_user.groupBy("n").agg(
        F.count(F.lit(1)).alias("users"),
        F.sum("n").alias("events"),
        F.sum("liked").alias("positives"),
        F.sum("test_events").alias("test_events"),
        F.unix_micros(F.min("first")).alias("first"),
        F.unix_micros(F.max("last")).alias("last"),
        F.count("eligible").alias("with_liked"),
        F.min("eligible").alias("user_id"),
        F.min_by("liked", "eligible").alias("liked"),
    )
    return sorted(by_length.collect(), key=lambda row: int(row["n"]))


def user_lists(pinned: Pinned, lengths: list[Row], n_users: int) -> list[UserLists]:
    """A few users who liked something and have a list, spread by the length of their histories.

    Args:
        lengths: from :func:`history_lengths`; the same ones give the same users.

    Returns:
        At most ``n_users``; users whose histories are equally long count once.
    """
    chosen = _choose_users(lengths, n_users)
    if not chosen:
        return []
    ids = [user["user_id"] for user in chosen]
    liked = _last_liked(pinned, ids)
    shown = {"list_name": DEFAULT, "user_id": ids, "rank": list(range(1, SHOWN_TOP + 1))}
    top = pinned.rows(TOP_N, ("user_id", "rank", "title", "score"), shown).sort_by("rank").to_pylist()
    users = [
        UserLists(
            user_id=str(user["user_id"]),
            events=user["n"],
            liked_events=user["liked"],
            liked=liked[user["user_id"]],
            top=[Recommended(r["rank"], r["title"], r["score"]) for r in top if r["user_id"] == user["user_id"]],
        )
        for user in chosen
    ]
    return [user for user in users if user.top]


def _choose_users(lengths: list[Row], n_users: int) -> list[Row]:
    """The rows at the middles of ``n_users`` equal parts of the users, or the nearest one that is not taken yet."""
    free = [row for row in lengths if row["with_liked"]]
    ends = np.cumsum([row["with_liked"] for row in free])
    chosen: set[int] = set()
    for part in range(min(n_users, len(free))):
        wanted = int(np.searchsorted(ends, (part + 0.5) / n_users * ends[-1], side="right"))
        chosen.add(min(set(range(len(free))) - chosen, key=lambda place: (abs(place - wanted), place)))
    return [free[place] for place in sorted(chosen)]


def _last_liked(pinned: Pinned, ids: list[Any]) -> dict[Any, list[LikedItem]]:
    """The items that each of the users liked last, newest first."""
    columns = ("user_id", "position", "item_id", "time", "value")
    events = pinned.rows(EVENTS, (*columns, "label"), {"user_id": ids}).filter(pc.field("label") > 0)
    rows: dict[Any, list[dict[str, Any]]] = {user: [] for user in ids}
    for row in events.sort_by([("position", "descending")]).to_pylist():
        if len(rows[row["user_id"]]) < SHOWN_LIKED:
            rows[row["user_id"]].append(row)
    shown = {row["item_id"] for of_user in rows.values() for row in of_user}
    items = pinned.rows(ITEMS, ("item_id", "title"), {"item_id": list(shown)}).to_pylist()
    titles = {row["item_id"]: row["title"] for row in items}
    return {
        user: [LikedItem(titles.get(row["item_id"], str(row["item_id"])), row["time"], row["value"]) for row in of_user]
        for user, of_user in rows.items()
    }


def cluster_facts(pinned: Pinned, items: ItemFacts) -> list[ClusterFacts]:
    """The profiles of all clusters; first those with most of the best known items, which a person can judge."""
    known = Counter(items.map_clusters.tolist())
    rows = pinned.rows(CLUSTER_PROFILES).to_pylist()
    rows.sort(key=lambda row: (-known[row["cluster_id"]], row["cluster_id"]))
    return [
        ClusterFacts(
            cluster_id=row["cluster_id"],
            size=row["size"],
            label=row["label"],
            genres=[(genre["name"], genre["lift"]) for genre in row["top_genres"]],
            tags=[(tag["name"], tag["lift"]) for tag in row["top_tags"]],
            exemplars=[item["title"] for item in row["exemplars"]],
            decades=[(decade["name"], decade["lift"]) for decade in row["top_decades"]],
            cohesion=row["cohesion"],
        )
        for row in rows
    ]


def cluster_line(pinned: Pinned) -> ClusterLine | None:
    """What became of the ids of an earlier run; None for the first run of a line."""
    if CLUSTER_CHANGES.name not in pinned.publication.tables:  # published by an earlier version of fm_spark
        return None
    rows = pinned.rows(CLUSTER_CHANGES, ("status", "stability", "matched_run_id")).to_pylist()
    if not rows or rows[0]["matched_run_id"] is None:
        return None
    of = Counter(row["status"] for row in rows)
    return ClusterLine(rows[0]["matched_run_id"], rows[0]["stability"], of["kept"], of["born"], of["dead"])


def item_facts(pinned: Pinned) -> ItemFacts:
    """Events and lists of every item, and the vectors and clusters of the best known ones; grows with the catalogue."""
    # joined here, not in Spark: four small tables, and every join would cost several jobs
    top = pinned.read(TOP_N).where(F.col("list_name") == F.lit(DEFAULT))
    listed = top.groupBy("item_id").agg(F.count(F.lit(1)).alias("listed")).toPandas()
    clusters = pinned.rows(ITEM_CLUSTERS, ("item_id", "cluster_id")).to_pandas()
    catalogue = load_catalogue(pinned.rows(ITEMS))
    items = pd.DataFrame({"item_id": catalogue.item_id, "count": catalogue.count, "place": range(catalogue.n_items)})
    vectors = _vectors(pinned)
    counts = items.merge(listed, on="item_id", how="left")
    best = items.merge(clusters, on="item_id").sort_values(["count", "item_id"], ascending=[False, True])
    mapped = best.head(MAPPED_ITEMS).assign(value=best["item_id"].astype(str))
    mapped = mapped.merge(vectors[vectors["field"] == ITEM], on="value")
    return ItemFacts(
        count=counts["count"].to_numpy(dtype=np.int64),
        listed=counts["listed"].fillna(0).to_numpy(dtype=np.int64),
        map_vectors=_composed(mapped, vectors, catalogue),
        map_clusters=mapped["cluster_id"].to_numpy(dtype=np.int64),
    )


def _vectors(pinned: Pinned) -> pd.DataFrame:
    """Columns field, value, factors of the item side of the published model."""
    of_model = {"model_version": pinned.publication.model_version}
    fields = pinned.rows(FM_PARAMETERS, ("field",), of_model)["field"].unique().to_pylist()
    item_side = [name for name in fields if name in (ITEM, *ITEM_SIDE) or name.startswith(OF_COLUMN)]
    found = pinned.rows(FM_PARAMETERS, ("field", "value", "factors"), {**of_model, "field": item_side})
    vectors: pd.DataFrame = found.to_pandas()
    return vectors


def _composed(items: pd.DataFrame, vectors: pd.DataFrame, catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """Item vectors: the item's own and those of its side features, each times its value."""
    own = np.array(items["factors"].tolist(), dtype=np.float64).reshape(len(items), -1)
    side = item_features(catalogue, ordered_fields(vectors["field"].unique()))
    if not side.parts:
        return own.astype(np.float32)
    factors = vectors.set_index(["field", "value"])["factors"]
    learnt = np.array([factors[part.field, name] for part in side.parts for name in part.names], dtype=np.float64)
    composed: npt.NDArray[np.float32] = (own + side.x[items["place"].to_numpy()] @ learnt).astype(np.float32)
    return composed
