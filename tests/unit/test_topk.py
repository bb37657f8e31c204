from __future__ import annotations

from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core import topk
from fm_spark.core.item_scores import USER_TILE, UserItems, no_items, prepare_items, tile_product, user_items
from fm_spark.core.topk import MARGIN, TopN, sort_items, top_n
from fm_spark.errors import DivergenceError

Floats = npt.NDArray[np.float32]


def slow_top_n(
    factors: Floats, bias: Floats, queries: Floats, n: int, seen: UserItems, allowed: npt.NDArray[np.bool_]
) -> list[list[int]]:
    """Sorts every score; the sum runs from the first factor on, in float64, as the definition says."""
    scores = np.zeros((len(queries), len(bias)))
    for f in range(factors.shape[1]):
        scores += queries[:, f : f + 1].astype(np.float64) * factors[:, f].astype(np.float64)
    scores += bias.astype(np.float64)
    lists = []
    for user, row in enumerate(scores):
        hidden = set(seen.items[seen.ptr[user] : seen.ptr[user + 1]].tolist())
        left = [i for i in range(len(bias)) if allowed[i] and i not in hidden]
        lists.append(sorted(left, key=lambda i, row=row: (-row[i], i))[:n])  # type: ignore[misc]
    return lists


def lists_of(result: TopN) -> list[list[int]]:
    return [row[:size].tolist() for row, size in zip(result.item, result.size, strict=True)]


def random_seen(rng: np.random.Generator, n_users: int, n_items: int, share: float) -> UserItems:
    user, item = np.nonzero(rng.random((n_users, n_items)) < share)
    ptr = np.searchsorted(user, np.arange(n_users + 1))
    return user_items(ptr, item.astype(np.int32))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(1, 6),
    n_items=st.integers(1, 220),
    k=st.integers(1, 9),
    n=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    grid=st.sampled_from([0.5, 1.0, 1e-3, 1e-30]),
)
def test_lists_equal_sorting_every_score(
    seed: int, n_users: int, n_items: int, k: int, n: int, share: float, grid: float
) -> None:
    """Values on a coarse grid make many exact ties, also across the cut."""
    rng = np.random.default_rng(seed)
    factors = (rng.integers(-2, 3, (n_items, k)) * grid).astype(np.float32)
    bias = (rng.integers(-2, 3, n_items) * grid).astype(np.float32)
    queries = rng.integers(-2, 3, (n_users, k)).astype(np.float32)
    seen = random_seen(rng, n_users, n_items, share)
    allowed = rng.random(n_items) < 0.8
    items = prepare_items(factors, bias, allowed)
    wanted = slow_top_n(factors, bias, queries, n, seen, allowed)
    assert lists_of(top_n(items, queries, n, seen)) == wanted
    assert lists_of(top_n(items, queries, n, seen, sort_items(items))) == wanted


def test_near_ties_below_float32_are_ordered_by_the_float64_score() -> None:
    """Scores that differ by less than float32 resolves, more of them than the margin holds."""
    rng = np.random.default_rng(5)
    n_items = 40 * MARGIN
    # the same product 1000 x 1000 everywhere; the second factor tells the items apart by 1e-4, float32 resolves 0.06
    factors = np.column_stack([np.full(n_items, 1000.0), rng.permutation(n_items) * 1e-4]).astype(np.float32)
    queries = np.array([[1000.0, 1.0]], dtype=np.float32)
    result = top_n(prepare_items(factors, np.zeros(n_items)), queries, 10)
    assert lists_of(result) == [np.argsort(-factors[:, 1])[:10].tolist()]


@pytest.mark.parametrize("seed", range(5))
def test_large_factors_that_cancel_do_not_disturb_the_order(seed: int) -> None:
    """Products of about a million that cancel: the float32 scores are off by more than the scores differ."""
    rng = np.random.default_rng(seed)
    n_items = 600
    large = rng.uniform(500, 1500, (n_items, 3)).astype(np.float32)
    small = rng.uniform(0, 0.1, (n_items, 1)).astype(np.float32)
    factors = np.column_stack([large, small, -large])
    queries = np.array([[1000, 900, 800, 1, 1000, 900, 800]], dtype=np.float32)
    bias = np.zeros(n_items, np.float32)
    result = top_n(prepare_items(factors, bias), queries, 10)
    assert lists_of(result) == slow_top_n(factors, bias, queries, 10, no_items(1), np.ones(n_items, np.bool_))


def test_an_item_that_float32_puts_below_the_margin_still_comes_first() -> None:
    """2^20 + 0.55 - 2^20 is 0.5 in float32, less than the 40 items from 0.51 on that lose nothing."""
    plain = np.column_stack([np.zeros(40), 0.51 + 1e-4 * np.arange(40), np.zeros(40)])
    factors = np.vstack([plain, [1024, 0.55, -1024]]).astype(np.float32)
    query = np.array([[1024, 1, 1024]], dtype=np.float32)
    assert (factors[:, 0] * query[0, 0] + factors[:, 1] + factors[:, 2] * query[0, 2])[40] == 0.5
    assert lists_of(top_n(prepare_items(factors, np.zeros(41)), query, 3)) == [[40, 39, 38]]


def test_more_users_and_items_than_a_tile() -> None:
    rng = np.random.default_rng(1)
    factors, bias = rng.normal(size=(2500, 5)).astype(np.float32), rng.normal(size=2500).astype(np.float32)
    queries = rng.normal(size=(USER_TILE + 3, 5)).astype(np.float32)
    seen = random_seen(rng, len(queries), 2500, 0.05)
    result = top_n(prepare_items(factors, bias), queries, 30, seen)
    assert lists_of(result) == slow_top_n(factors, bias, queries, 30, seen, np.ones(2500, np.bool_))
    scores = queries.astype(np.float64) @ factors.T.astype(np.float64) + bias
    assert np.allclose(result.score, np.take_along_axis(scores, result.item, axis=1), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), share=st.sampled_from([0.0, 0.3, 0.9]))
def test_tiles_that_cannot_hold_a_good_item_are_left_out(seed: int, n: int, share: float) -> None:
    """Most items are short, as rare ones are in a trained machine: they are scored for few users, if for any."""
    rng = np.random.default_rng(seed)
    length = np.where(np.arange(600) % 10 == 0, 2.0, 0.01)
    factors = (rng.normal(size=(600, 4)) * length[:, None]).astype(np.float32)
    bias = np.where(rng.random(600) < 0.1, -0.5, 0.0).astype(np.float32)
    queries = (rng.normal(size=(9, 4)) * rng.choice([0.0, 1.0, 100.0], (9, 1))).astype(np.float32)
    seen = random_seen(rng, 9, 600, share)
    allowed = rng.random(600) < 0.9
    items, scored = prepare_items(factors, bias, allowed), []

    def product(queries: Floats, factors: Floats, buffer: Floats) -> Floats:
        scored.append(len(queries) * len(factors))
        return tile_product(queries, factors, buffer)

    with patch.object(topk, "ITEM_TILE", 16), patch.object(topk, "tile_product", product):
        found = lists_of(top_n(items, queries, n, seen, sort_items(items, reach=1.0)))
    assert found == slow_top_n(factors, bias, queries, n, seen, allowed)
    if share == 0.0 and n <= 10 and (np.abs(queries).sum(axis=1) > 0).any():
        assert sum(scored) < 9 * 600


def test_a_user_who_has_seen_everything_gets_an_empty_list_and_few_items_make_short_ones() -> None:
    seen = user_items(np.array([0, 3, 4]), np.array([2, 0, 1, 1], dtype=np.int32))
    result = top_n(prepare_items(np.ones((3, 1)), np.array([1.0, 2.0, 3.0])), np.zeros((2, 1)), 5, seen)
    assert lists_of(result) == [[], [2, 0]]
    assert result.item[1].tolist() == [2, 0, -1, -1, -1]
    assert np.isnan(result.score[1, 2:]).all()


def test_equal_scores_are_listed_by_item_index() -> None:
    result = top_n(prepare_items(np.zeros((500, 3)), np.zeros(500)), np.ones((1, 3)), 4)
    assert lists_of(result) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    factors = np.zeros((4, 2))
    factors[2, 1] = bad
    with pytest.raises(DivergenceError, match="index 2"):
        prepare_items(factors, np.zeros(4))
    with pytest.raises(DivergenceError, match="index 1"):
        prepare_items(np.zeros((4, 2)), np.array([0, bad, 0, 0]))
    with pytest.raises(DivergenceError, match="user of index 1"):
        top_n(prepare_items(np.ones((4, 2)), np.zeros(4)), np.array([[0, 0], [bad, 0]]), 1)


def test_scores_that_would_overflow_float32_are_refused() -> None:
    items = prepare_items(np.full((4, 2), 1e30), np.zeros(4))
    with pytest.raises(DivergenceError, match="scores of 1 of 1 users"):
        top_n(items, np.full((1, 2), 1e30), 1)


def test_wrong_arguments_are_refused() -> None:
    items = prepare_items(np.ones((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="n = 0"):
        top_n(items, np.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match="do not fit"):
        top_n(items, np.zeros((1, 3)), 1)
    for ptr, seen in [([0, 2], [2, 1]), ([0, 1], [4]), ([0, 1], [-1]), ([0, 0, 0], [])]:
        with pytest.raises(ValueError, match="ascending"):
            top_n(items, np.zeros((1, 2)), 1, UserItems(np.array(ptr), np.array(seen, dtype=np.int32)))


def test_user_items_sorts_within_users_and_keeps_users_without_items() -> None:
    keep = np.array([True, True, False, True])
    sets = user_items(np.array([0, 3, 3, 4]), np.array([5, 1, 2, 0], dtype=np.int32), keep)
    assert sets.ptr.tolist() == [0, 2, 2, 3]
    assert sets.items.tolist() == [1, 5, 0]
    assert no_items(2).ptr.tolist() == [0, 0, 0]
