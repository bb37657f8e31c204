"""K-means on the driver, which holds the item vectors anyway: Lloyd's steps from several starts, and the silhouette.

Spark ML's k-means spends a job on every step and has a single start: slower and worse at any number of items that a
driver can hold (docs/adr/0005-kmeans-on-the-driver.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

log = logging.getLogger("fm_spark.ranking.kmeans")

# numbers of clusters are compared on this many vectors at most, from so many starts, after so many steps: on MovieLens
# more of each moves a silhouette by less than candidates differ
_COMPARED_VECTORS, _COMPARED_STARTS, _COMPARED_STEPS = 20_000, 3, 10
# of the clusters themselves; the steps are cluster.max_iter
_STARTS = 5
# a given start is kept when it ends at most this share worse than the best of the others
_LOYALTY = 0.01

Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]


def normalised(vectors: npt.NDArray[np.float32] | Doubles) -> Doubles:
    """Rows of length 1 in float64; rows of zeros stay as they are."""
    found = vectors.astype(np.float64)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    found /= np.where(norm > 0, norm, 1.0)
    return found


def nearest(vectors: Doubles, centres: Doubles) -> tuple[Ids, Doubles]:
    """The nearest centre of every vector (the first of equals), int32 [n], and the distance to it, float64 [n]."""
    cluster = _nearest(vectors, centres)
    return cluster, np.linalg.norm(vectors - centres[cluster], axis=1)


def _nearest(vectors: Doubles, centres: Doubles) -> Ids:
    squares = np.einsum("ij,ij->i", centres, centres) - 2.0 * vectors @ centres.T
    cluster: Ids = squares.argmin(axis=1).astype(np.int32)
    return cluster


def best_k(vectors: Doubles, candidates: Sequence[int], seed: int) -> int:
    """The number of clusters with the best silhouette, the first of equals.

    Compared on short runs over a fixed sample of the vectors, the best of some starts.

    Args:
        vectors: float64 [n, k].
    """
    sample = vectors[:: -(-len(vectors) // _COMPARED_VECTORS)]
    compared = []
    for k in candidates:
        starts = (np.random.default_rng([seed, start]) for start in range(_COMPARED_STARTS))
        fits = (_lloyd(sample, _first_centres(sample, k, rng), _COMPARED_STEPS) for rng in starts)
        compared.append(max(silhouette(sample, _nearest(sample, centres)) for centres in fits))
        log.info("%d clusters: silhouette %.4f", k, compared[-1])
    return candidates[int(np.argmax(compared))]


def kmeans(vectors: Doubles, k: int, max_iter: int, seed: int, start: Doubles | None = None) -> Doubles:
    """Centres with the least sum of squared distances to the vectors, the best of five starts (the first of equals).

    Args:
        vectors: float64 [n, width], k different ones at least.
        max_iter: steps of each start at most; it ends earlier when no vector changes its cluster.
        start: float64 [k, width], centres to begin with as well: what comes of them is taken unless another start ends
            with a sum that is smaller by more than one in a hundred. Sums differ by less between starts that put half
            of the vectors elsewhere.

    Returns:
        float64 [k, width]; a centre that has lost all its vectors stays where it was.

    Source: Lloyd (1982); first centres as in k-means++ (Arthur and Vassilvitskii, 2007).
    """
    firsts = [_first_centres(vectors, k, np.random.default_rng([seed, number])) for number in range(_STARTS)]
    found = []
    for first in firsts if start is None else [*firsts, start]:
        centres = _lloyd(vectors, first, max_iter)
        found.append((float((nearest(vectors, centres)[1] ** 2).sum()), centres))
    best = min(found[:_STARTS], key=lambda fit: fit[0])
    return found[-1][1] if found[-1][0] <= (1.0 + _LOYALTY) * best[0] and start is not None else best[1]


def means(vectors: Doubles, cluster: Ids) -> Doubles | None:
    """Mean of the vectors of each cluster, float64 [n_clusters, width]; None when a cluster has no vector.

    Args:
        vectors: float64 [n, width].
        cluster: int32 [n], from 0; -1 for a vector without a cluster.
    """
    there = cluster >= 0
    size = np.bincount(cluster[there])
    if not len(size) or not size.all():
        return None
    found: Doubles = _sums(vectors[there], cluster[there], len(size)) / size[:, None]
    return found


def _first_centres(vectors: Doubles, k: int, rng: np.random.Generator) -> Doubles:
    """Vectors drawn with probability proportional to their squared distance to the nearest one drawn before."""
    square = np.einsum("ij,ij->i", vectors, vectors)
    centres = np.repeat(vectors[rng.integers(len(vectors), size=1)], k, axis=0)
    far = np.full(len(vectors), np.inf)
    for i in range(1, k):
        last = centres[i - 1]
        far = np.minimum(far, np.maximum(square - 2.0 * (vectors @ last) + last @ last, 0.0))
        total = far.cumsum()
        drawn = np.searchsorted(total, rng.random() * total[-1], side="right")
        centres[i] = vectors[min(drawn, len(vectors) - 1)]
    return centres


def _lloyd(vectors: Doubles, centres: Doubles, steps: int) -> Doubles:
    k, before = len(centres), None
    for _ in range(steps):
        cluster = _nearest(vectors, centres)
        if before is not None and np.array_equal(cluster, before):
            break
        size = np.bincount(cluster, minlength=k)[:, None]
        centres = np.where(size > 0, _sums(vectors, cluster, k) / np.maximum(size, 1), centres)
        before = cluster
    return centres


def silhouette(vectors: Doubles, cluster: Ids) -> float:
    """Mean over the vectors of (b - a) / max(a, b) with squared Euclidean distances.

    a is the mean squared distance to the other vectors of the cluster, b the least mean squared distance to the
    vectors of another cluster. A vector alone in its cluster counts 0; one cluster gives 0. Cost O(vectors x clusters).

    Args:
        vectors: float64 [n, k].
        cluster: int32 [n], ids from 0.

    Source: Rousseeuw (1987); the sums per cluster as in Spark ML's ClusteringEvaluator, which needs two jobs for them.
    """
    size = np.bincount(cluster).astype(np.float64)
    total = _sums(vectors, cluster, len(size))
    square = np.einsum("ij,ij->i", vectors, vectors)
    squares = np.bincount(cluster, weights=square)
    sums = square[:, None] * size + squares - 2.0 * vectors @ total.T  # to all vectors of each cluster
    own = np.arange(len(vectors)), cluster
    a = sums[own] / np.maximum(size[cluster] - 1, 1)
    others = sums / np.maximum(size, 1)
    others[own] = np.inf
    others[:, size == 0] = np.inf
    b = others.min(axis=1)
    usable = (size[cluster] > 1) & np.isfinite(b) & (np.maximum(a, b) > 0)
    return float(np.divide(b - a, np.maximum(a, b), out=np.zeros_like(a), where=usable).mean())


def _sums(vectors: Doubles, cluster: Ids, k: int) -> Doubles:
    """Sum of the vectors of each cluster, in the order of the vectors: float64 [k, width]."""
    one_each = csr_matrix((np.ones(len(cluster)), cluster, np.arange(len(cluster) + 1)), shape=(len(cluster), k))
    return np.asarray(one_each.T @ vectors)
