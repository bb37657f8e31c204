"""What a cluster of items is about: genres and tags that stand out, exemplars, a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import ceil, log2

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.clusters import Clusters

EXEMPLARS = 5
_LISTED = 5
_LABEL_NAMES = 2
# a name must be on this share of the cluster's items and on this many of them, or one rare tag would be the headline
_GENRE_SHARE, _TAG_SHARE, _LEAST_ITEMS = 0.10, 0.01, 3
_LEAST_LIFT = 1.1


@dataclass(frozen=True)
class Trait:
    """A genre or tag that stands out: the share of the cluster's items that have it; lift = that / the catalogue's."""

    name: str
    share: float
    lift: float


@dataclass(frozen=True)
class Exemplar:
    """A well-known item near the centre; the id as text."""

    item_id: str
    title: str
    distance: float
    count: int


@dataclass(frozen=True)
class Profile:
    """One row of ``cluster_profiles``."""

    cluster_id: int
    size: int
    label: str
    top_genres: list[Trait]
    top_tags: list[Trait]
    exemplars: list[Exemplar]


def profiles(catalogue: Catalogue, tags: Sequence[Sequence[str]], clusters: Clusters) -> list[Profile]:
    """Describes every cluster, by cluster id; labels are distinct.

    Args:
        tags: tags of each item in the catalogue's order.
    """
    genres_of_all, tags_of_all = _items_with(catalogue.genres), _items_with(tags)
    found: list[Profile] = []
    for cluster_id in range(len(clusters.centres)):
        members = np.flatnonzero(clusters.cluster == cluster_id)
        indices = members.tolist()
        genres = traits([catalogue.genres[i] for i in indices], genres_of_all, catalogue.n_items, _GENRE_SHARE)
        top_tags = traits([tags[i] for i in indices], tags_of_all, catalogue.n_items, _TAG_SHARE)
        examples = exemplars(catalogue, clusters, members)
        label = _label(genres, top_tags, examples, {p.label for p in found}, cluster_id)
        found.append(Profile(cluster_id, len(members), label, genres, top_tags, examples))
    return found


def traits(
    names_of_members: Sequence[Sequence[str]], items_with: Counter[str], n_items: int, least_share: float
) -> list[Trait]:
    """The five names that set a cluster apart most, strongest first.

    Strength is share x log2(lift), with lift = share among the members / share in the catalogue: a name on many
    members counts more than a rarer one of the same lift. Names need a lift of 1.1, three members (or all of a
    smaller cluster) and ``least_share`` of the members. Equals go by name. No members, no traits.

    Args:
        items_with: number of items of the catalogue that have a name.
        n_items: items in the catalogue.
    """
    size = len(names_of_members)
    support = max(min(_LEAST_ITEMS, size), ceil(least_share * size))
    found = [
        Trait(name, members / size, (members / size) / (items_with[name] / n_items))
        for name, members in _items_with(names_of_members).items()
        if members >= support
    ]
    standing_out = [trait for trait in found if trait.lift >= _LEAST_LIFT]
    return sorted(standing_out, key=lambda t: (-t.share * log2(t.lift), t.name))[:_LISTED]


def exemplars(catalogue: Catalogue, clusters: Clusters, members: npt.NDArray[np.int64]) -> list[Exemplar]:
    """The five items with the most events among the half of the members nearest to the centre (but at least five)."""
    near = members[np.lexsort((members, clusters.distance[members]))][: max(EXEMPLARS, ceil(len(members) / 2))]
    known = near[np.lexsort((near, -catalogue.count[near]))][:EXEMPLARS]
    return [
        Exemplar(
            str(catalogue.item_id[i]), str(catalogue.title[i]), float(clusters.distance[i]), int(catalogue.count[i])
        )
        for i in known
    ]


def _items_with(names_of_items: Sequence[Sequence[str]]) -> Counter[str]:
    return Counter(name for names in names_of_items for name in set(names))


def _label(genres: list[Trait], tags: list[Trait], examples: list[Exemplar], taken: set[str], cluster_id: int) -> str:
    """``Genre / Genre: Exemplar``, tags where no genre stands out; another exemplar or the id tells twins apart."""
    names = " / ".join(trait.name for trait in (genres or tags)[:_LABEL_NAMES])
    head = f"{names}: " if names else ""
    for n in range(1, len(examples) + 1):
        label = head + ", ".join(example.title for example in examples[:n])
        if label not in taken:
            return label
    return f"{head}{examples[0].title} ({cluster_id})"


def item_tags(items: DataFrame, catalogue: Catalogue) -> list[list[str]]:
    """Tags of every item of the ``items`` table, in the catalogue's order; only tagged items travel to the driver."""
    tags: list[list[str]] = [[] for _ in range(catalogue.n_items)]
    for row in items.where(F.size("tags") > 0).select("item_feature", "tags").collect():
        tags[catalogue.feature_to_item[row["item_feature"]]] = list(row["tags"])
    return tags


def profile_rows(described: Sequence[Profile]) -> pd.DataFrame:
    """The rows of ``cluster_profiles`` but for run and model."""
    return pd.DataFrame([astuple(profile) for profile in described], columns=[f.name for f in fields(Profile)])
