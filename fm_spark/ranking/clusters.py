"""Item clusters: k-means on the normalised item vectors, with ids that mean the same whenever the input is the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.ml.clustering import KMeans
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.config import ClusterConfig
from fm_spark.core.rare_items import blended
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue

log = logging.getLogger("fm_spark.ranking.clusters")

# numbers of clusters are compared on this many items at most, from so many starts, after so many steps: on MovieLens
# more of each moves a silhouette by less than candidates differ
_COMPARED_ITEMS, _COMPARED_STARTS, _COMPARED_STEPS = 20_000, 3, 10

Doubles = npt.NDArray[np.float64]


class Clusters(NamedTuple):
    """Which cluster every item belongs to; ids from 0 by size descending, then by the smallest item index.

    Attributes:
        cluster: int32 [n_items].
        distance: float64 [n_items], Euclidean distance to the centre of the cluster, of the vector by which the item
            was assigned (``supported``).
        medoid: bool [n_items], true for the nearest item of each cluster (the first of equals).
        centres: float64 [n_clusters, k].
        silhouette: of the items that shaped the clusters, -1 to 1.
    """

    cluster: npt.NDArray[np.int32]
    distance: Doubles
    medoid: npt.NDArray[np.bool_]
    centres: Doubles
    silhouette: float


@dataclass(frozen=True)
class _Fit:
    centres: Doubles
    silhouette: float


def cluster_items(
    spark: SparkSession,
    item_factors: npt.NDArray[np.float32],
    count: npt.NDArray[np.int64],
    genres: Sequence[Sequence[str]],
    config: ClusterConfig,
) -> Clusters:
    """Clusters the items by Spark ML's k-means; the same input gives the same ids on any number of cores.

    Items with at least ``cluster.min_count`` events shape the clusters, the others join the centre nearest to what
    is known about them (``supported``). With ``cluster.k = "auto"`` the candidate with the best silhouette is taken,
    the smaller of equals.

    Args:
        item_factors: float32 [n_items, k]; a row of zeros stays one.
        count: int64 [n_items], events of each item.
        genres: of each item.

    Raises:
        ConfigError: fewer different items shape the clusters than there would be clusters.
    """
    vectors = normalised(item_factors)
    shaping = vectors[count >= config.min_count]
    candidates = _candidates(config, len(np.unique(shaping, axis=0)))
    k = candidates[0] if len(candidates) == 1 else best_k(shaping, candidates, config.seed)
    fit = _fit(_one_partition(spark, shaping), shaping, k, config.max_iter, config.seed)
    return _assign(supported(item_factors.astype(np.float64), count, genres, config.min_count), fit)


def normalised(item_factors: npt.NDArray[np.float32] | Doubles) -> Doubles:
    """Rows of length 1 in float64; rows of zeros stay as they are."""
    vectors = item_factors.astype(np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norm > 0, norm, 1.0)
    return vectors


def supported(
    factors: Doubles, count: npt.NDArray[np.int64], genres: Sequence[Sequence[str]], min_count: int
) -> Doubles:
    """The vectors by which items are assigned: those of :func:`~fm_spark.core.rare_items.blended`, of length 1."""
    return normalised(blended(factors, count, genres, min_count))


def best_k(vectors: Doubles, candidates: Sequence[int], seed: int) -> int:
    """The number of clusters with the best silhouette, the first of equals.

    Compared without Spark, which spends seconds on the many small jobs of every fit: short k-means runs on a fixed
    sample of the items, the best of some starts.

    Args:
        vectors: float64 [n, k].
    """
    sample = vectors[:: -(-len(vectors) // _COMPARED_ITEMS)]
    compared = []
    for k in candidates:
        fits = (_short_centres(sample, k, np.random.default_rng([seed, start])) for start in range(_COMPARED_STARTS))
        compared.append(max(silhouette(sample, nearest(sample, centres)[0]) for centres in fits))
        log.info("%d clusters: silhouette %.4f", k, compared[-1])
    return candidates[int(np.argmax(compared))]


def _short_centres(vectors: Doubles, k: int, rng: np.random.Generator) -> Doubles:
    """Centres after some of Lloyd's steps from the start of k-means++ (Arthur and Vassilvitskii, 2007)."""
    centres = np.repeat(vectors[rng.integers(len(vectors), size=1)], k, axis=0)
    far = np.full(len(vectors), np.inf)
    for i in range(1, k):
        far = np.minimum(far, ((vectors - centres[i - 1]) ** 2).sum(axis=1))
        total = far.cumsum()
        drawn = np.searchsorted(total, rng.random() * total[-1], side="right")
        centres[i] = vectors[min(drawn, len(vectors) - 1)]
    for _ in range(_COMPARED_STEPS):
        cluster = nearest(vectors, centres)[0]
        size, total = np.bincount(cluster, minlength=k)[:, None], np.zeros_like(centres)
        np.add.at(total, cluster, vectors)
        centres = np.where(size > 0, total / np.maximum(size, 1), centres)
    return centres


def silhouette(vectors: Doubles, cluster: npt.NDArray[np.int32]) -> float:
    """Mean over the items of (b - a) / max(a, b) with squared Euclidean distances.

    a is the mean squared distance to the other items of the item's cluster, b the least mean squared distance to the
    items of another cluster. An item alone in its cluster counts 0; one cluster gives 0. Cost O(items x clusters).

    Args:
        vectors: float64 [n, k].
        cluster: int32 [n], ids from 0.

    Source: Rousseeuw (1987); the sums per cluster as in Spark ML's ClusteringEvaluator, which needs two jobs for them.
    """
    size = np.bincount(cluster).astype(np.float64)
    total = np.zeros((len(size), vectors.shape[1]))
    np.add.at(total, cluster, vectors)
    square = np.einsum("ij,ij->i", vectors, vectors)
    squares = np.bincount(cluster, weights=square)
    sums = square[:, None] * size + squares - 2.0 * vectors @ total.T  # to all items of each cluster
    own = np.arange(len(vectors)), cluster
    a = sums[own] / np.maximum(size[cluster] - 1, 1)
    others = sums / np.maximum(size, 1)
    others[own] = np.inf
    others[:, size == 0] = np.inf
    b = others.min(axis=1)
    usable = (size[cluster] > 1) & np.isfinite(b) & (np.maximum(a, b) > 0)
    return float(np.divide(b - a, np.maximum(a, b), out=np.zeros_like(a), where=usable).mean())


def _candidates(config: ClusterConfig, different: int) -> list[int]:
    asked = sorted(set(config.k_candidates)) if config.k == "auto" else [config.k]
    possible = [k for k in asked if k <= different]
    if not possible:
        key = "cluster.k_candidates" if config.k == "auto" else "cluster.k"
        shown = config.k_candidates if config.k == "auto" else config.k
        raise ConfigError(
            f"{key} = {shown} is too many clusters: only {different} different items have at least "
            f"cluster.min_count = {config.min_count} events; give at most {different}, or lower cluster.min_count"
        )
    return possible


def _one_partition(spark: SparkSession, vectors: Doubles) -> DataFrame:
    """The vectors in a fixed order in one partition, because k-means samples and sums by partition."""
    rows = pd.DataFrame({"row": np.arange(len(vectors)), "features": list(vectors)})
    frame = spark.createDataFrame(rows).coalesce(1).sortWithinPartitions("row")
    return frame.select(array_to_vector(F.col("features")).alias("features"))  # k-means persists it in its own form


def _fit(frame: DataFrame, vectors: Doubles, k: int, max_iter: int, seed: int) -> _Fit:
    kmeans = KMeans(k=k, maxIter=max_iter, seed=seed, initMode="k-means||")
    centres = np.array(kmeans.fit(frame).clusterCenters())
    value = silhouette(vectors, nearest(vectors, centres)[0])
    log.info("%d clusters after at most %d iterations: silhouette %.4f", k, max_iter, value)
    return _Fit(centres, value)


def nearest(vectors: Doubles, centres: Doubles) -> tuple[npt.NDArray[np.int32], Doubles]:
    """The nearest centre of every vector (the first of equals), int32 [n], and the distance to it, float64 [n]."""
    squares = np.einsum("ij,ij->i", centres, centres) - 2.0 * vectors @ centres.T
    cluster = squares.argmin(axis=1).astype(np.int32)
    return cluster, np.linalg.norm(vectors - centres[cluster], axis=1)


def _assign(vectors: Doubles, fit: _Fit) -> Clusters:
    found, distance = nearest(vectors, fit.centres)
    used, first, size = np.unique(found, return_index=True, return_counts=True)  # a centre may have lost all its items
    order = np.lexsort((first, -size))
    new_id = np.full(len(fit.centres), -1, dtype=np.int32)
    new_id[used[order]] = np.arange(len(used))
    cluster = new_id[found]
    medoid = np.zeros(len(cluster), dtype=np.bool_)
    by_distance = np.lexsort((np.arange(len(cluster)), distance, cluster))
    medoid[by_distance[np.unique(cluster[by_distance], return_index=True)[1]]] = True
    return Clusters(cluster, distance, medoid, fit.centres[used[order]], fit.silhouette)


def cluster_rows(catalogue: Catalogue, clusters: Clusters) -> pd.DataFrame:
    """The rows of ``item_clusters`` but for run and model."""
    return pd.DataFrame(
        {
            "item_id": catalogue.item_id,
            "title": catalogue.title,
            "cluster_id": clusters.cluster,
            "distance": clusters.distance,
            "is_medoid": clusters.medoid,
        }
    )
