from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm_spark.config import load_config
from fm_spark.config_sections import PopularConfig
from fm_spark.core.popularity import best, growth, weighted_rating
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.popular import ItemCounts, popular_rows

SETTINGS = PopularConfig(n=2, prior_percentile=50.0, recent_days=10.0, previous_days=20.0, smoothing=1.0)


def catalogue(genres: list[list[str]]) -> Catalogue:
    n = len(genres)
    place = np.arange(n, dtype=np.int32)
    title = np.array([f"Film {i}" for i in range(n)], object)
    return Catalogue(place + 100, title, genres, np.ones(n, np.int64), place, place, [None] * n, [{}] * n)


def test_weighted_rating_is_the_mean_with_m_more_ratings_of_the_overall_mean() -> None:
    ratings = [[5.0, 5.0], [4.0] * 10, [2.0] * 6, []]
    count = np.array([len(own) for own in ratings])
    mean = np.array([np.mean(own) if own else np.nan for own in ratings])
    overall = np.mean([value for own in ratings for value in own])
    m = 6  # the median of 2, 10 and 6
    wanted = [np.mean([*own, *[overall] * m]) for own in ratings[:3]]
    found = weighted_rating(count, mean, 50.0)
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-12)
    assert np.isnan(found[3])
    assert np.isnan(weighted_rating(np.zeros(2, np.int64), np.full(2, np.nan), 50.0)).all()


def test_growth_needs_more_than_a_few_events_and_counts_the_length_of_the_windows() -> None:
    recent, before = np.array([3, 200, 50, 0]), np.array([1, 100, 100, 9])
    found = growth(recent, before, 0.5, 10.0)
    np.testing.assert_allclose(found[:3], [13 / 10.5, 210 / 60, 1.0])
    assert np.isnan(found[3])


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, float("nan")]), min_size=1, max_size=12), st.integers(1, 5))
def test_best_is_by_score_then_by_index(score: list[float], n: int) -> None:
    members = np.arange(0, len(score), 2)
    wanted = sorted((i for i in members if np.isfinite(score[i])), key=lambda i: (-score[i], i))[:n]
    assert best(np.array(score), members, n).tolist() == wanted


def test_lists_are_overall_and_of_each_genre() -> None:
    genres = [["Drama"], ["Comedy", "Drama"], ["Drama"], [], ["Never seen"]]
    counts = ItemCounts(
        np.array([4, 4, 1, 9, 0]),
        np.array([5.0, 3.0, 5.0, 4.0, np.nan]),
        np.array([0, 3, 1, 1, 0]),
        np.array([4, 1, 0, 8, 0]),
        rated=True,
    )
    rows = popular_rows(catalogue(genres), counts, SETTINGS)
    lists = {key: group["item_id"].tolist() for key, group in rows.groupby(["kind", "genre"])}
    assert lists["count", ""] == [103, 100]
    assert lists["count", "Drama"] == [100, 101]
    assert lists["count", "Comedy"] == [101]
    assert lists["trending", ""] == [101, 102]  # 4 / 1.5, 2 / 1, 2 / 5
    assert lists["weighted_rating", "Drama"] == [100, 102]
    assert not [genre for _, genre in lists if genre == "Never seen"]
    assert rows.groupby(["kind", "genre"])["rank"].apply(list).map(lambda r: r == list(range(1, len(r) + 1))).all()


def test_a_log_without_ratings_has_no_weighted_rating() -> None:
    counts = ItemCounts(np.array([2, 1]), np.ones(2), np.array([1, 1]), np.array([1, 0]), rated=False)
    rows: pd.DataFrame = popular_rows(catalogue([[], []]), counts, SETTINGS)
    assert set(rows["kind"]) == {"count", "trending"}


def test_windows_need_a_length() -> None:
    with pytest.raises(ConfigError, match=r"popular\.recent_days = 0"):
        load_config(overrides=["popular.recent_days=0"])
