"""The nearest items against comparing every pair, sorted whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core import neighbours as N
from fm_spark.errors import DivergenceError


def slow(
    vectors: np.ndarray, allowed: np.ndarray, count: np.ndarray, metric: str, discount: float, n: int
) -> list[list[tuple[int, float]]]:
    """Every list by one float64 product a pair, in the order of the factors, as the documented score says."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1)
    lists = []
    for i in range(len(wide)):
        pairs = []
        for j in range(len(wide)):
            if i == j or not allowed[j] or length[i] == 0 or length[j] == 0:
                continue
            product = sum(float(a) * float(b) for a, b in zip(wide[i], wide[j], strict=True))
            if metric == "cosine":
                product = min(1.0, max(-1.0, product * ((1 / length[i]) * (1 / length[j]))))
            pairs.append((-product * float(max(count[j], 1)) ** -discount, j))
        lists.append([(j, -score) for score, j in sorted(pairs)[:n]])
    return lists


def found(around: N.Neighbourhood, n: int) -> list[list[tuple[int, float]]]:
    best = N.nearest_items(around, np.arange(len(around.vectors)), n)
    assert (np.count_nonzero(best.item >= 0, axis=1) == best.size).all()
    assert (np.isnan(best.score) == (best.item < 0)).all()
    return [
        [(int(item), float(score)) for item, score in zip(*pair, strict=True) if item >= 0]
        for pair in zip(best.item, best.score, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(["cosine", "inner"]),
    discount=st.sampled_from([0.0, 0.5, 1.0]),
    n=st.integers(1, 40),
    grid=st.booleans(),
)
def test_equal_to_comparing_all_pairs(seed: int, metric: str, discount: float, n: int, grid: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, 3)).astype(np.float32)
    if grid:  # many equal and parallel vectors: the order is that of the items
        vectors = rng.integers(-1, 2, size=(30, 3)).astype(np.float32)
    vectors[rng.random(30) < 0.1] = 0
    count, allowed = rng.integers(0, 5, 30), rng.random(30) < 0.8
    around = N.neighbourhood(vectors, allowed, count, metric, discount)
    assert found(around, n) == slow(vectors, allowed, count, metric, discount, n)


def test_near_ties_that_float32_cannot_tell_apart_are_ordered_as_float64_does() -> None:
    rng = np.random.default_rng(3)
    vectors = np.repeat(rng.normal(size=(1, 8)), 64, axis=0).astype(np.float32)
    vectors *= (1 + rng.integers(-2, 3, vectors.shape) * 2.0**-23).astype(np.float32)
    count, allowed = np.ones(64, np.int64), np.ones(64, np.bool_)
    around = N.neighbourhood(vectors, allowed, count)
    assert found(around, 5) == slow(vectors, allowed, count, "cosine", 0.0, 5)


def test_fewer_candidates_than_places_and_none_at_all() -> None:
    vectors, count = np.eye(4, dtype=np.float32) + 1, np.zeros(4, np.int64)
    few = N.neighbourhood(vectors, np.array([True, False, True, False]), count)
    assert N.nearest_items(few, np.arange(4), 9).size.tolist() == [1, 2, 1, 2]
    none = N.neighbourhood(vectors, np.zeros(4, np.bool_), count)
    assert N.nearest_items(none, np.arange(4), 3).size.tolist() == [0, 0, 0, 0]


def test_asked_items_may_be_any_part_of_the_catalogue() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    around = N.neighbourhood(vectors, np.ones(50, np.bool_), np.ones(50, np.int64))
    whole = N.nearest_items(around, np.arange(50), 6)
    part = N.nearest_items(around, np.array([40, 3]), 6)
    np.testing.assert_array_equal(part.item, whole.item[[40, 3]])
    np.testing.assert_array_equal(part.score, whole.score[[40, 3]])


def test_what_is_not_finite_is_refused() -> None:
    vectors = np.ones((3, 2), np.float32)
    vectors[1, 0] = np.nan
    with pytest.raises(DivergenceError):
        N.neighbourhood(vectors, np.ones(3, np.bool_), np.ones(3, np.int64))
