from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.cluster_matching import match_clusters
from fm_spark.ranking.clusters import Clusters, supported_vectors
from fm_spark.ranking.kmeans import best_k, nearest, normalised, silhouette
from fm_spark.ranking.profiles import Profile, profile_rows, profiles


def catalogue(
    genres: list[list[str]], count: list[int], title: list[str] | None = None, year: list[int | None] | None = None
) -> Catalogue:
    n = len(genres)
    places = np.arange(n, dtype=np.int32)
    titles = np.array(title or [f"T{i}" for i in range(n)], dtype=object)
    return Catalogue(np.arange(n) + 1, titles, genres, np.array(count), places, places, year or [None] * n, [{}] * n)


def clusters(of: list[int], distance: list[float] | None = None) -> Clusters:
    cluster = np.array(of, dtype=np.int32)
    far = np.array(distance if distance is not None else [0.5] * len(of))
    cosine = 1 - far**2 / 2
    return Clusters(cluster, far, cosine, far < 9, np.zeros(len(of), np.bool_), np.zeros((max(of) + 1, 2)), 0.0)


def described(of_all: Catalogue, tags: list[list[str]], found: Clusters) -> list[Profile]:
    return profiles(of_all, tags, found, np.arange(len(found.centres), dtype=np.int32))


def test_lift_is_share_in_the_cluster_over_share_in_the_catalogue() -> None:
    genres = [["Horror"], ["Horror"], ["Horror"], ["Comedy"], ["Comedy"], ["Comedy"], ["Comedy"], ["Horror"]]
    first, second = described(catalogue(genres, [1] * 8), [[]] * 8, clusters([0, 0, 0, 0, 1, 1, 1, 1]))
    assert [(t.name, t.share, t.lift) for t in first.top_genres] == [("Horror", 0.75, 0.75 / 0.5)]
    assert [(t.name, t.share, t.lift) for t in second.top_genres] == [("Comedy", 0.75, 0.75 / 0.5)]


def test_a_rare_tag_is_no_headline_and_what_is_everywhere_does_not_stand_out() -> None:
    tags = [["common"]] * 40
    tags[0] = ["rare", "common"]
    for i in range(5):
        tags[i] = [*tags[i], "fitting"]
    found = described(catalogue([[]] * 40, [1] * 40), tags, clusters([0] * 20 + [1] * 20))
    assert [t.name for t in found[0].top_tags] == ["fitting"]
    assert found[1].top_tags == []


def test_exemplars_are_the_best_known_of_the_nearer_half() -> None:
    distance = [0.1 * i for i in range(12)]
    count = [1, 9, 3, 7, 5, 8, 100, 100, 100, 100, 100, 100]
    (found,) = described(catalogue([[]] * 12, count), [[]] * 12, clusters([0] * 12, distance))
    assert [e.item_id for e in found.exemplars] == ["2", "6", "4", "5", "3"]
    assert found.label == "T1"


def test_labels_are_distinct_also_for_equal_titles() -> None:
    genres = [["Drama"], ["Drama"], ["Drama"], []] * 3
    cluster = [0, 0, 0, 3, 1, 1, 1, 3, 2, 2, 2, 3]
    title = ["Emma", "A", "A", "X"] * 3
    found = described(catalogue(genres, [5, 1, 1, 1] * 3, title), [[]] * 12, clusters(cluster))
    assert [p.label for p in found] == [
        "Drama: Emma",
        "Drama: Emma, A",
        "Drama: Emma, A, A",
        "X",
    ]


def test_decades_stand_out_by_lift_and_items_without_a_year_have_none() -> None:
    year = [1991, 1999, 1990, 2005, 2009, 2000, None, 2001]
    first, second = described(catalogue([[]] * 8, [1] * 8, year=year), [[]] * 8, clusters([0] * 4 + [1] * 4))
    assert [(t.name, t.share, t.lift) for t in first.top_decades] == [("1990s", 0.75, 2.0)]
    assert [(t.name, t.share, t.lift) for t in second.top_decades] == [("2000s", 0.75, 1.5)]


def test_a_label_names_an_exemplar_of_its_first_genre() -> None:
    genres = [["Comedy"], ["Horror"], ["Horror"], ["Horror"], ["Comedy"], ["Comedy"], ["Comedy"], ["Comedy"]]
    first, _ = described(catalogue(genres, [9, 8, 7, 6, 5, 4, 3, 2]), [[]] * 8, clusters([0] * 4 + [1] * 4))
    assert [e.title for e in first.exemplars] == ["T0", "T1", "T2", "T3"]
    assert first.label == "Horror: T1"


def test_cohesion_is_the_mean_cosine_of_the_members() -> None:
    found = described(catalogue([[]] * 4, [1] * 4), [[]] * 4, clusters([0, 0, 1, 1], [0.2, 0.4, 0.0, 0.0]))
    assert [profile.cohesion for profile in found] == [pytest.approx(1 - (0.02 + 0.08) / 2), 1.0]


def test_profiles_go_by_the_ids_that_the_clusters_have_and_say_where_these_come_from() -> None:
    of, now = catalogue([[]] * 6, [1] * 6), clusters([0, 0, 0, 1, 1, 2])
    matched = match_clusters(of.item_id, now.cluster, None)._replace(ids=np.array([9, 2, 30], dtype=np.int32))
    found = profiles(of, [[]] * 6, now, matched.ids)
    assert [(profile.cluster_id, profile.size) for profile in found] == [(2, 2), (9, 3), (30, 1)]
    assert len({profile.label for profile in found}) == 3
    rows = profile_rows(found[:1], matched)
    assert (rows["status"].tolist(), rows["stability"].tolist()) == (["born"], [None])


def test_tags_name_a_cluster_without_genres() -> None:
    tags = [["noir"], ["noir"], ["noir"], [], [], []]
    found = described(catalogue([[]] * 6, [1] * 6), tags, clusters([0, 0, 0, 1, 1, 1]))
    assert found[0].label == "noir: T0"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 40), k=st.integers(2, 6))
def test_silhouette_equals_scikit_learn(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 3))
    cluster = rng.integers(0, k, n).astype(np.int32)
    cluster[:2] = 0, 1
    if len(set(cluster.tolist())) < n:
        expected = silhouette_score(vectors, cluster, metric="sqeuclidean")
        assert silhouette(vectors, cluster) == pytest.approx(expected, abs=1e-9)


def test_silhouette_of_one_cluster_and_of_equal_items_is_zero() -> None:
    assert silhouette(np.eye(3), np.zeros(3, np.int32)) == 0.0
    assert silhouette(np.ones((4, 2)), np.array([0, 0, 1, 1], np.int32)) == 0.0


def test_rows_of_zeros_stay_zeros() -> None:
    assert normalised(np.array([[3, 4], [0, 0]], dtype=np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]


def of_two_genres(n: int, seed: int = 0) -> tuple[np.ndarray, list[list[str]]]:
    """Vectors of length 1 around two opposite directions, one for each genre, by turns."""
    rng = np.random.default_rng(seed)
    direction = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)[:, None] * np.eye(1, 6)
    return normalised(direction + rng.normal(0, 0.1, (n, 6))), [["Horror"], ["Comedy"]] * (n // 2)


def test_rare_items_go_where_their_genres_are_and_not_where_their_random_start_is() -> None:
    vectors, genres = of_two_genres(100)
    count = np.full(100, 9)
    count[60:] = np.arange(40) % 3  # 0 to 2 events
    vectors[60:] = normalised(np.eye(1, 6) + np.random.default_rng(1).normal(0, 0.1, (40, 6)))  # all look like Horror
    found = supported_vectors(vectors, count, genres, 5)
    assert found[:60] == pytest.approx(vectors[:60])
    cluster, distance = nearest(found, np.array([np.eye(6)[0], -np.eye(6)[0]]))
    assert cluster.tolist() == [0, 1] * 50
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(100))
    assert distance.max() < 1


def test_rare_items_without_known_genres_are_pulled_to_the_mean_by_their_count() -> None:
    vectors = normalised(np.array([[3, 1], [3, -1], [0, 1], [0, 1], [0, 0]], dtype=np.float32))
    found = supported_vectors(vectors, np.array([8, 8, 2, 0, 0]), [["A"], ["A"], ["unknown"], [], []], 4)
    mean = vectors[:2].mean(axis=0)
    expected = 2 * vectors[2] + 4 * mean
    assert found[2] == pytest.approx(expected / np.linalg.norm(expected))
    assert found[3:] == pytest.approx(np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_the_number_of_clusters_is_found_and_fewer_different_items_than_clusters_are_no_error() -> None:
    rng = np.random.default_rng(3)
    planted = np.repeat(np.eye(5), 40, axis=0) + rng.normal(0, 0.1, (200, 5))
    assert best_k(planted, [2, 4, 5, 8], seed=1) == 5
    assert best_k(np.repeat(np.eye(2), 3, axis=0), [2, 4], seed=1) == 2
