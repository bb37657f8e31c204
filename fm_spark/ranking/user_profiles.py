"""What the users of a taste group like: genres and items that stand out, a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.profiles import Trait, label, standing_out

Counts = npt.NDArray[np.int64]

# a genre must be on this share of what the group likes, an item must be liked by this share of its users
_GENRE_SHARE, _ITEM_SHARE = 0.05, 0.05


@dataclass(frozen=True)
class LikedItem:
    """An item that a group likes more than others do; the id as text."""

    item_id: str
    title: str
    share: float
    lift: float


@dataclass(frozen=True)
class UserProfile:
    """One row of ``user_cluster_profiles``."""

    cluster_id: int
    size: int
    label: str
    top_genres: list[Trait]
    exemplars: list[LikedItem]


def liked_by_group(events: DataFrame, groups: DataFrame, catalogue: Catalogue) -> tuple[Counts, Counts]:
    """Users of every group, and how many of them like every item: int64 [n_groups] and [n_groups, n_items].

    Args:
        events: the ``events`` table.
        groups: user_id and cluster_id of every user, ids from 0.
    """
    sizes = groups.groupBy("cluster_id").agg(F.count(F.lit(1)).alias("users")).toPandas()
    liked = events.where(F.col("label") > 0).select("user_id", "item_feature").distinct()
    pairs = liked.join(groups.select("user_id", "cluster_id"), on="user_id", how="inner")
    # at most groups x items rows, whatever the number of users
    counted = pairs.groupBy("cluster_id", "item_feature").agg(F.count(F.lit(1)).alias("users")).toPandas()
    size = np.zeros(int(sizes["cluster_id"].max()) + 1, dtype=np.int64)
    size[sizes["cluster_id"]] = sizes["users"]
    users = np.zeros((len(size), catalogue.n_items), dtype=np.int64)
    users[counted["cluster_id"], catalogue.feature_to_item[counted["item_feature"]]] = counted["users"]
    return size, users


def user_profiles(catalogue: Catalogue, size: Counts, users: Counts) -> list[UserProfile]:
    """Describes every group that has users, by id; labels are distinct.

    Args:
        size: int64 [n_groups], users.
        users: int64 [n_groups, n_items], those who like an item.
    """
    genre_likes = [_genre_likes(of_group, catalogue.genres) for of_group in users]
    all_users, all_genres = users.sum(axis=0), _genre_likes(users.sum(axis=0), catalogue.genres)
    found: list[UserProfile] = []
    for group in np.flatnonzero(size).tolist():
        likes = int(users[group].sum())
        genres = standing_out(genre_likes[group], likes, all_genres, int(users.sum()), _GENRE_SHARE)
        items = standing_out(
            _by_item(users[group]), int(size[group]), _by_item(all_users), int(size.sum()), _ITEM_SHARE
        )
        exemplars = [
            LikedItem(str(catalogue.item_id[int(i.name)]), str(catalogue.title[int(i.name)]), i.share, i.lift)
            for i in items
        ]
        titles = [exemplar.title for exemplar in exemplars] or [f"{int(size[group]):,} users"]
        name = label(genres, titles, {profile.label for profile in found}, group)
        found.append(UserProfile(group, int(size[group]), name, genres, exemplars))
    return found


def _genre_likes(users: Counts, genres: Sequence[Sequence[str]]) -> dict[str, int]:
    """Likes of items that have a genre."""
    likes: dict[str, int] = {}
    for item in np.flatnonzero(users).tolist():
        for name in set(genres[item]):
            likes[name] = likes.get(name, 0) + int(users[item])
    return likes


def _by_item(users: Counts) -> dict[str, int]:
    """Users by item place, which goes as text so that an item can be a trait; padded, so that equals go by place."""
    return {f"{item:012d}": int(users[item]) for item in np.flatnonzero(users).tolist()}


def user_profile_rows(described: Sequence[UserProfile]) -> pd.DataFrame:
    """The rows of ``user_cluster_profiles`` but for run and model."""
    return pd.DataFrame([astuple(profile) for profile in described], columns=[f.name for f in fields(UserProfile)])
