from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from fm_spark.core import metrics
from fm_spark.core.item_scores import UserItems, no_items, prepare_items, user_items
from fm_spark.core.metrics import METRICS, MetricSums, no_users, rank_metrics, user_metrics


def sets(*users: list[int]) -> UserItems:
    ptr = np.concatenate([[0], np.cumsum([len(u) for u in users])]).astype(np.int64)
    return user_items(ptr, np.array([i for u in users for i in u], dtype=np.int32))


def by_hand() -> MetricSums:
    """30 items ranked 0, 1, 2, ... by their bias; three users with truth, one without."""
    items = prepare_items(np.zeros((30, 1)), -np.arange(30.0))
    seen = sets([0, 1], [], [], [])
    truth = sets([2, 4], [25], [], list(range(12)))
    return rank_metrics(items, np.zeros((4, 1), np.float32), seen, truth)


def test_metrics_by_hand() -> None:
    """User 0 hits at ranks 1 and 3 of 2; user 1 first hits at rank 26; user 3 holds out the first twelve."""
    d = [1 / math.log2(r + 1) for r in range(1, 11)]
    expected = {
        "ndcg_at_10": ((d[0] + d[2]) / (d[0] + d[1]) + 0 + 1) / 3,
        "recall_at_20": (1 + 0 + 1) / 3,
        "precision_at_10": (0.2 + 0 + 1) / 3,
        "map_at_10": ((1 / 1 + 2 / 3) / 2 + 0 + 1) / 3,
        "mrr": (1 + 1 / 26 + 1) / 3,
        "hit_rate_at_10": 2 / 3,
        "coverage_at_10": 12 / 30,
    }
    sums = by_hand()
    assert (sums.users, sums.users_without_truth) == (3, 1)
    assert sums.means() == pytest.approx(expected, abs=1e-9)


def test_recall_is_over_at_most_twenty() -> None:
    items = prepare_items(np.zeros((60, 1)), -np.arange(60.0))
    sums = rank_metrics(items, np.zeros((1, 1), np.float32), no_items(1), sets(list(range(10, 50))))
    assert sums.means()["recall_at_20"] == pytest.approx(10 / 20, abs=1e-9)


def test_hidden_truth_counts_as_missed() -> None:
    allowed = np.array([True, True, False])
    items = prepare_items(np.zeros((3, 1)), np.array([3.0, 2.0, 1.0]), allowed)
    values = user_metrics(items, np.zeros((2, 1), np.float32), sets([0], []), sets([0, 1], [2])).value
    named = dict(zip(METRICS, values.T, strict=True))
    assert named["recall_at_20"].tolist() == [0.5, 0.0]
    assert named["mrr"].tolist() == [1.0, 0.0]


def test_nobody_gives_nan_and_a_list_of_zero_users_is_the_neutral_element() -> None:
    nothing = no_users(30)
    assert all(math.isnan(nothing.means()[name]) for name in METRICS)
    merged, alone = nothing.merge(by_hand()), by_hand()
    assert merged.means() == alone.means()
    empty = rank_metrics(
        prepare_items(np.ones((3, 1)), np.zeros(3)), np.zeros((2, 1), np.float32), no_items(2), no_items(2)
    )
    assert (empty.users, empty.users_without_truth) == (0, 2)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(2, 90), k=st.sampled_from([1, 5, 10, 20]))
def test_ndcg_equals_scikit_learn(seed: int, n_items: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.random((7, n_items)) < 0.2
    relevance[:, 0] |= ~relevance.any(axis=1)
    scores = rng.permuted(np.tile(np.arange(float(n_items)), (7, 1)), axis=1)
    order = np.argsort(-scores, axis=1)
    hits = np.zeros((7, max(k, n_items)), np.bool_)
    hits[:, :n_items] = np.take_along_axis(relevance, order, axis=1)
    ours = metrics.ndcg(hits, relevance.sum(axis=1), k)
    assert ours.mean() == pytest.approx(ndcg_score(relevance, scores, k=k), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 150))
def test_mrr_equals_the_place_in_the_sorted_ranking_with_ties(seed: int, n_items: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.integers(-1, 2, (n_items, 2)).astype(np.float32)
    bias = rng.integers(-1, 2, n_items).astype(np.float32)
    queries = rng.integers(-1, 2, (5, 2)).astype(np.float32)
    seen_mask, truth_mask = rng.random((5, n_items)) < 0.3, rng.random((5, n_items)) < 0.05
    seen = sets(*[np.flatnonzero(row).tolist() for row in seen_mask])
    truth = sets(*[np.flatnonzero(row).tolist() for row in truth_mask])
    values = user_metrics(prepare_items(factors, bias), queries, seen, truth).value[:, METRICS.index("mrr")]
    for user in range(5):
        scores = factors @ queries[user] + bias
        ranking = [i for i in np.lexsort((np.arange(n_items), -scores)) if not seen_mask[user, i]]
        places = [place for place, i in enumerate(ranking, start=1) if truth_mask[user, i]]
        if not truth_mask[user].any():
            assert math.isnan(values[user])
        else:
            assert values[user] == (1 / places[0] if places else 0.0)


def test_sums_do_not_depend_on_how_users_are_grouped() -> None:
    rng = np.random.default_rng(3)
    items = prepare_items(rng.normal(size=(200, 4)), rng.normal(size=200))
    queries = rng.normal(size=(50, 4)).astype(np.float32)
    seen = [rng.choice(200, 20, replace=False).tolist() for _ in range(50)]
    truth = [rng.choice(200, rng.integers(0, 8), replace=False).tolist() for _ in range(50)]
    whole = rank_metrics(items, queries, sets(*seen), sets(*truth))
    merged = no_users(200)
    for part in reversed(np.array_split(np.arange(50), 7)):
        block = rank_metrics(items, queries[part], sets(*[seen[u] for u in part]), sets(*[truth[u] for u in part]))
        merged = block.merge(merged)
    assert whole.means() == merged.means()
    assert whole.covered.tolist() == merged.covered.tolist()
