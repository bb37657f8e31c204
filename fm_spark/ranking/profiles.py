"""What a cluster of items is about: genres, tags and decades that stand out, exemplars, a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import ceil, log2

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.cluster_matching import Matched
from fm_spark.ranking.clusters import Clusters

EXEMPLARS = 5
_LISTED = 5
_LABEL_NAMES = 2
# a name must be on this share of the cluster's items and on this many of them, or one rare tag would be the headline
_GENRE_SHARE, _TAG_SHARE, _LEAST_ITEMS = 0.10, 0.01, 3
_LEAST_LIFT = 1.1


@dataclass(frozen=True)
class Trait:
    """A genre, tag or decade that stands out: its share of the cluster's items; lift = that / its share of all."""

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
    top_decades: list[Trait]
    exemplars: list[Exemplar]
    cohesion: float


def profiles(
    catalogue: Catalogue, tags: Sequence[Sequence[str]], clusters: Clusters, ids: npt.NDArray[np.int32]
) -> list[Profile]:
    """Describes every cluster, by cluster id; labels are distinct.

    Args:
        tags: tags of each item in the catalogue's order.
        ids: int32 [n_clusters], what each cluster is called.
    """
    described = _Described(catalogue, tags)
    found: list[Profile] = []
    for place, cluster_id in enumerate(ids.tolist()):
        members = np.flatnonzero(clusters.cluster == place)
        genres, top_tags, decades = described.standing_out_of(members.tolist())
        examples = exemplars(catalogue, clusters, members)
        # the exemplars that a label names first are of the genre that it names first
        first = {trait.name for trait in genres[:1]}
        titles = [e.title for e in sorted(examples, key=lambda e: first.isdisjoint(described.genres_of[e.item_id]))]
        name = label(genres or top_tags, titles, {profile.label for profile in found}, cluster_id)
        cohesion = float(clusters.cosine[members].mean())
        found.append(Profile(cluster_id, len(members), name, genres, top_tags, decades, examples, cohesion))
    return sorted(found, key=lambda profile: profile.cluster_id)


class _Described:
    """Genres, tags and decades of the catalogue's items, and how many items have each of them."""

    def __init__(self, catalogue: Catalogue, tags: Sequence[Sequence[str]]) -> None:
        decades = [[] if year is None else [f"{year // 10 * 10}s"] for year in catalogue.year]
        self._names = [(catalogue.genres, _GENRE_SHARE), (tags, _TAG_SHARE), (decades, _GENRE_SHARE)]
        self._items_with = [_items_with(of_items) for of_items, _ in self._names]
        self.genres_of = {str(name): genres for name, genres in zip(catalogue.item_id, catalogue.genres, strict=True)}

    def standing_out_of(self, members: list[int]) -> list[list[Trait]]:
        """The genres, the tags and the decades that set these items apart."""
        return [
            traits([of_items[i] for i in members], items_with, len(of_items), least_share)
            for (of_items, least_share), items_with in zip(self._names, self._items_with, strict=True)
        ]


def traits(
    names_of_members: Sequence[Sequence[str]], items_with: Counter[str], n_items: int, least_share: float
) -> list[Trait]:
    """The five names that set a cluster apart most, see :func:`standing_out`.

    Args:
        items_with: number of items of the catalogue that have a name.
        n_items: items in the catalogue.
    """
    return standing_out(_items_with(names_of_members), len(names_of_members), items_with, n_items, least_share)


def standing_out(
    own: Mapping[str, int], size: int, of_all: Mapping[str, int], n_all: int, least_share: float
) -> list[Trait]:
    """The five names that set a group apart most, strongest first.

    Strength is share x log2(lift), with lift = share among the members / share among all: a name of many members
    counts more than a rarer one of the same lift. Names need a lift of 1.1, three members (or all of a smaller group)
    and ``least_share`` of the members. Equals go by name. No members, no traits.

    Args:
        own: members of the group that have a name.
        size: members of the group.
        of_all: members of any group that have a name.
        n_all: members of all groups.
    """
    support = max(min(_LEAST_ITEMS, size), ceil(least_share * size))
    found = [
        Trait(name, members / size, (members / size) / (of_all[name] / n_all))
        for name, members in own.items()
        if members >= support
    ]
    found = [trait for trait in found if trait.lift >= _LEAST_LIFT]
    return sorted(found, key=lambda t: (-t.share * log2(t.lift), t.name))[:_LISTED]


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


def label(names: Sequence[Trait], titles: Sequence[str], taken: set[str], cluster_id: int) -> str:
    """``Genre / Genre: Exemplar``; another exemplar or the id tells twins apart.

    Args:
        names: what stands out, best first.
        titles: of the exemplars, best first; one at least.
        taken: labels of other clusters.
    """
    head = " / ".join(trait.name for trait in names[:_LABEL_NAMES])
    head = f"{head}: " if head else ""
    for n in range(1, len(titles) + 1):
        found = head + ", ".join(titles[:n])
        if found not in taken:
            return found
    return f"{head}{titles[0]} ({cluster_id})"


def item_tags(items: pa.Table, catalogue: Catalogue) -> list[list[str]]:
    """Tags of every item of the ``items`` table, in the catalogue's order."""
    tags: list[list[str]] = [[] for _ in range(catalogue.n_items)]
    for feature, of_item in zip(items["item_feature"].to_pylist(), items["tags"].to_pylist(), strict=True):
        tags[catalogue.feature_to_item[feature]] = of_item
    return tags


def profile_rows(described: Sequence[Profile], matched: Matched) -> pd.DataFrame:
    """The rows of ``cluster_profiles`` but for run and model."""
    rows = pd.DataFrame([astuple(profile) for profile in described], columns=[f.name for f in fields(Profile)])
    status = {change.cluster_id: change.status for change in matched.changes}
    return rows.assign(status=rows["cluster_id"].map(status), stability=matched.stability)
