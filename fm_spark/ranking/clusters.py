"""Item clusters: k-means on the normalised item vectors, with ids that mean the same whenever the input is the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from fm_spark.config_sections import ClusterConfig
from fm_spark.core.rare_items import blended
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.kmeans import best_k, kmeans, means, nearest, normalised, silhouette

log = logging.getLogger("fm_spark.ranking.clusters")


Doubles = npt.NDArray[np.float64]


class Clusters(NamedTuple):
    """Which cluster every item belongs to; clusters go by size descending, then by the smallest item index.

    Attributes:
        cluster: int32 [n_items], place of the item's cluster in this order, from 0.
        distance: float64 [n_items], Euclidean distance to the centre of the cluster, of the vector by which the item
            was assigned (``supported_vectors``).
        cosine: float64 [n_items], cosine of that vector and the centre, 0 where one of them is zeros.
        supported: bool [n_items], true for the items that shaped the clusters.
        medoid: bool [n_items], true for the nearest item of each cluster (the first of equals).
        centres: float64 [n_clusters, k].
        silhouette: of the items that shaped the clusters, -1 to 1.
    """

    cluster: npt.NDArray[np.int32]
    distance: Doubles
    cosine: Doubles
    supported: npt.NDArray[np.bool_]
    medoid: npt.NDArray[np.bool_]
    centres: Doubles
    silhouette: float


class Fit(NamedTuple):
    """What k-means found: centres, float64 [n_clusters, k], and the silhouette of the vectors that it was given."""

    centres: Doubles
    silhouette: float


def cluster_items(
    item_factors: npt.NDArray[np.float32],
    count: npt.NDArray[np.int64],
    genres: Sequence[Sequence[str]],
    config: ClusterConfig,
    earlier: npt.NDArray[np.int32] | None = None,
) -> Clusters:
    """Clusters the items by k-means; the same input gives the same clusters.

    Items with at least ``cluster.min_count`` events shape the clusters, the others join the centre nearest to what
    is known about them (``supported_vectors``). With ``cluster.k = "auto"`` the candidate with the best silhouette is
    taken, the smaller of equals.

    Args:
        item_factors: float32 [n_items, k]; a row of zeros stays one.
        count: int64 [n_items], events of each item.
        genres: of each item.
        earlier: int32 [n_items], the cluster that each item was in before, -1 for none; where there are as many
            clusters as before, k-means begins with their centres as well, so that clusters change as the items do and
            not by a draw.

    Raises:
        ConfigError: fewer different items shape the clusters than there would be clusters.
    """
    shapes = count >= config.min_count
    shaping = normalised(item_factors)[shapes]
    what = f"items have at least cluster.min_count = {config.min_count} events (lower it for more)"
    asked = candidates(config.k, "cluster.k", config.k_candidates, len(np.unique(shaping, axis=0)), what)
    fit = fit_clusters(shaping, asked, config, None if earlier is None else means(shaping, earlier[shapes]))
    vectors = supported_vectors(item_factors.astype(np.float64), count, genres, config.min_count)
    return _assign(vectors, shapes, fit)


def fit_clusters(vectors: Doubles, asked: Sequence[int], config: ClusterConfig, start: Doubles | None = None) -> Fit:
    """K-means with the candidate whose silhouette is best, the smaller of equals.

    Args:
        vectors: float64 [n, k], in a fixed order.
        asked: numbers of clusters, ascending; at most as many as there are different vectors.
        start: centres to begin with as well, where there are as many as there are to be clusters.
    """
    k = asked[0] if len(asked) == 1 else best_k(vectors, asked, config.seed)
    begin = start if start is not None and len(start) == k else None
    centres = kmeans(vectors, k, config.max_iter, config.seed, begin)
    value = silhouette(vectors, nearest(vectors, centres)[0])
    log.info("%d clusters after at most %d iterations: silhouette %.4f", k, config.max_iter, value)
    return Fit(centres, value)


def supported_vectors(
    factors: Doubles, count: npt.NDArray[np.int64], genres: Sequence[Sequence[str]], min_count: int
) -> Doubles:
    """The vectors by which items are assigned: those of :func:`~fm_spark.core.rare_items.blended`, of length 1."""
    return normalised(blended(factors, count, genres, min_count))


def candidates(k: int | str, key: str, among: Sequence[int], different: int, what: str) -> list[int]:
    """The numbers of clusters to compare, ascending: those that there can be.

    Args:
        k: the number, or ``auto`` for those of ``among``.
        key: the configuration key of ``k``.
        different: how many different vectors shape the clusters.
        what: whose vectors they are, for the message.

    Raises:
        ConfigError: there are too few different vectors for any of the numbers.
    """
    asked = sorted(set(among)) if isinstance(k, str) else [k]
    possible = [number for number in asked if number <= different]
    if not possible:
        given = f"cluster.k_candidates = {list(among)}" if isinstance(k, str) else f"{key} = {k}"
        raise ConfigError(f"{given} is too many clusters: only {different} different {what}; give at most {different}")
    return possible


def _assign(vectors: Doubles, supported: npt.NDArray[np.bool_], fit: Fit) -> Clusters:
    found, distance = nearest(vectors, fit.centres)
    used, first, size = np.unique(found, return_index=True, return_counts=True)  # a centre may have lost all its items
    order = np.lexsort((first, -size))
    place = np.full(len(fit.centres), -1, dtype=np.int32)
    place[used[order]] = np.arange(len(used))
    cluster, centres = place[found], fit.centres[used[order]]
    medoid = np.zeros(len(cluster), dtype=np.bool_)
    by_distance = np.lexsort((np.arange(len(cluster)), distance, cluster))
    medoid[by_distance[np.unique(cluster[by_distance], return_index=True)[1]]] = True
    cosine = np.einsum("ij,ij->i", normalised(vectors), normalised(centres)[cluster])
    return Clusters(cluster, distance, cosine, supported, medoid, centres, fit.silhouette)


def cluster_rows(catalogue: Catalogue, clusters: Clusters, ids: npt.NDArray[np.int32]) -> pd.DataFrame:
    """The rows of ``item_clusters`` but for run and model.

    Args:
        ids: int32 [n_clusters], what each cluster is called.
    """
    return pd.DataFrame(
        {
            "item_id": catalogue.item_id,
            "title": catalogue.title,
            "cluster_id": ids[clusters.cluster],
            "distance": clusters.distance,
            "is_medoid": clusters.medoid,
            "supported": clusters.supported,
        }
    )
