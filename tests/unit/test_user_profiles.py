from __future__ import annotations

import numpy as np
import pytest

from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.user_profiles import user_profiles


def catalogue(genres: list[list[str]]) -> Catalogue:
    n = len(genres)
    places = np.arange(n, dtype=np.int32)
    titles = np.array([f"T{i}" for i in range(n)], dtype=object)
    return Catalogue(np.arange(n) + 1, titles, genres, np.ones(n, np.int64), places, places, [None] * n, [{}] * n)


def test_shares_are_of_the_group_and_lifts_against_all_users() -> None:
    items = catalogue([["Horror"], ["Horror", "Comedy"], ["Comedy"], []])
    users = np.array([[8, 6, 2, 9], [0, 6, 27, 27]])
    horror, comedy = user_profiles(items, np.array([10, 30]), users)
    assert [(g.name, g.share) for g in horror.top_genres] == [("Horror", 14 / 25)]
    assert horror.top_genres[0].lift == pytest.approx((14 / 25) / (20 / 85))
    assert [(e.item_id, e.title, e.share) for e in horror.exemplars] == [("1", "T0", 0.8), ("2", "T1", 0.6)]
    assert [e.lift for e in horror.exemplars] == pytest.approx([0.8 / (8 / 40), 0.6 / (12 / 40)])
    assert (horror.label, horror.size) == ("Horror: T0", 10)
    assert [g.name for g in comedy.top_genres] == ["Comedy"]
    assert [e.item_id for e in comedy.exemplars] == ["3"]  # all like the last one alike: a lift of 1


def test_a_group_that_likes_nothing_more_than_others_do_has_a_name_and_one_without_users_no_profile() -> None:
    users = np.array([[5, 5], [0, 0], [5, 5]])
    found = user_profiles(catalogue([["A"], ["A"]]), np.array([10, 0, 10]), users)
    assert [(profile.cluster_id, profile.label) for profile in found] == [(0, "10 users"), (2, "10 users (2)")]
