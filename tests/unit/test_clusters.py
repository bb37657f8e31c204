from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from fm_spark.config import load_config
from fm_spark.config_sections import ClusterConfig
from fm_spark.errors import ConfigError
from fm_spark.ranking.clusters import cluster_items
from fm_spark.ranking.kmeans import kmeans, means, nearest, normalised


def planted(n_clusters: int, n_items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    of = np.sort(rng.integers(0, n_clusters, n_items))
    directions = np.eye(n_clusters, 8) * 3
    return of, (directions[of] + rng.normal(0, 0.2, (n_items, 8))).astype(np.float32)


def settings(**changes: object) -> ClusterConfig:
    return replace(load_config().cluster, **changes)  # type: ignore[arg-type]


def test_silhouette_finds_the_planted_clusters_and_rare_items_join_them() -> None:
    of, vectors = planted(4, 200)
    count = np.where(np.arange(200) % 3 == 0, 1, 9)
    found = cluster_items(vectors, count, [[]] * 200, settings(k_candidates=[2, 3, 4, 6]))
    assert len(found.centres) == 4
    assert len({(a, b) for a, b in zip(of, found.cluster, strict=True)}) == 4
    sizes = np.bincount(found.cluster)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert np.bincount(found.cluster[found.medoid]).tolist() == [1, 1, 1, 1]
    for cluster_id in range(4):
        members = np.flatnonzero(found.cluster == cluster_id)
        assert found.medoid[members[found.distance[members].argmin()]]


def test_same_input_gives_the_same_clusters() -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    config = settings(k="auto", k_candidates=[5, 9])
    first, second = (cluster_items(vectors, np.full(300, 9), [[]] * 300, config) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_items_under_the_floor_shape_nothing_and_are_marked() -> None:
    _, vectors = planted(3, 90)
    count = np.where(np.arange(90) % 2 == 0, 2, 5)
    found = cluster_items(vectors, count, [[]] * 90, settings(k=3, min_count=5))
    assert found.supported.tolist() == (count >= 5).tolist()
    vectors[count < 5] = 7.0
    elsewhere = cluster_items(vectors, count, [[]] * 90, settings(k=3, min_count=5))
    assert np.array_equal(*(fit.centres[np.lexsort(fit.centres.T)] for fit in (found, elsewhere)))


def test_cosine_is_that_of_the_vector_and_the_centre() -> None:
    _, vectors = planted(3, 90)
    found = cluster_items(vectors, np.full(90, 9), [[]] * 90, settings(k=3))
    centres = found.centres[found.cluster]
    expected = (vectors * centres).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(centres, axis=1)
    assert found.cosine == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("changes", "named"), [({"k": 9}, "cluster.k = 9"), ({"k_candidates": [9]}, r"\[9\]")])
def test_more_clusters_than_items_is_an_error(changes: dict[str, object], named: str) -> None:
    count = np.array([9, 9, 9, 9, 1, 1])
    with pytest.raises(ConfigError, match=rf"{named} .*only 4 different items"):
        cluster_items(np.eye(6, dtype=np.float32), count, [[]] * 6, settings(**changes))


def test_kmeans_is_as_good_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    vectors = normalised(rng.normal(size=(12, 10))[rng.integers(0, 12, 1500)] + rng.normal(0, 0.5, (1500, 10)))
    other = KMeans(12, n_init=10, random_state=0).fit(vectors).inertia_
    own = float((nearest(vectors, kmeans(vectors, 12, 100, seed=1))[1] ** 2).sum())
    assert own <= 1.02 * other


def test_kmeans_of_few_different_vectors_finds_each_of_them() -> None:
    vectors = np.repeat(np.eye(3), 5, axis=0)
    assert sorted(map(tuple, kmeans(vectors, 3, 10, seed=0))) == sorted(map(tuple, np.eye(3)))


def test_a_start_is_kept_where_it_is_about_as_good_and_not_where_it_is_worse() -> None:
    """Two equally good ways to cut a square in two; without the start the draws decide."""
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(5, axis=0)
    for start in ([[0.0, 0.5], [1.0, 0.5]], [[0.5, 0.0], [0.5, 1.0]]):
        assert kmeans(square, 2, 10, seed=0, start=np.array(start)).tolist() == start
    # two of three kinds in one cluster, nothing in the last: no step gets away from there
    stuck = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    found = kmeans(np.repeat(np.eye(3), 5, axis=0), 3, 10, seed=0, start=stuck)
    assert sorted(map(tuple, found)) == sorted(map(tuple, np.eye(3)))


def test_means_of_clusters_need_every_cluster() -> None:
    vectors = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0], [9.0, 9.0]])
    found = means(vectors, np.array([1, 1, 0, -1], dtype=np.int32))
    assert found is not None
    assert found.tolist() == [[5.0, 6.0], [2.0, 0.0]]
    assert means(vectors, np.array([2, 2, 0, -1], dtype=np.int32)) is None
    assert means(vectors, np.full(4, -1, dtype=np.int32)) is None


def test_clusters_of_a_model_that_has_hardly_changed_are_hardly_others() -> None:
    """Vectors without clusters: without the earlier ones every fit cuts them elsewhere."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    moved = (vectors + rng.normal(0, 0.05, vectors.shape)).astype(np.float32)
    count, config = np.full(600, 9), settings(k=12)
    before = cluster_items(vectors, count, [[]] * 600, config).cluster
    fresh = cluster_items(moved, count, [[]] * 600, replace(config, seed=2)).cluster
    loyal = cluster_items(moved, count, [[]] * 600, replace(config, seed=2), before).cluster
    assert adjusted_rand_score(before, loyal) > 0.8
    assert adjusted_rand_score(before, fresh) < 0.6
