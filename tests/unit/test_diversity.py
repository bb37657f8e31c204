from __future__ import annotations

import numpy as np
import pytest

from fm_spark.core.diversity import diversify, unit_vectors
from fm_spark.core.item_scores import no_items, prepare_items
from fm_spark.core.topk import TopN, top_n


def slow(item: list[int], score: list[float], vectors: np.ndarray, share: float, n: int) -> list[int]:
    """Places of the chosen candidates, by the definition."""
    chosen, left = [0], list(range(1, len(item)))
    spread = score[0] - score[-1]
    while left and len(chosen) < n:

        def value(j: int) -> float:
            relevance = (score[j] - score[-1]) / spread if spread > 0 else 0.0
            likest = max(float(vectors[item[j]].astype(float) @ vectors[item[c]].astype(float)) for c in chosen)
            return (1 - share) * relevance - share * likest

        best = max(left, key=lambda j: (value(j), -j))
        left.remove(best)
        chosen.append(best)
    return chosen[: min(n, len(item))]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_choice_is_that_of_the_definition(share: float) -> None:
    rng = np.random.default_rng(2)
    factors = rng.normal(size=(80, 4)).astype(np.float32)
    factors[7] = 0.0
    items, queries = prepare_items(factors, rng.normal(size=80)), rng.normal(size=(9, 4)).astype(np.float32)
    pool = top_n(items, queries, 30, no_items(9))
    vectors = unit_vectors(factors)
    made = diversify(pool, vectors, share, 10)
    for u in range(9):
        wanted = slow(pool.item[u].tolist(), pool.score[u].tolist(), vectors, share, 10)
        assert made.lists.item[u].tolist() == pool.item[u, wanted].tolist()
        np.testing.assert_array_equal(made.lists.score[u], pool.score[u, wanted])
    np.testing.assert_array_equal(made.cost, pool.score[:, :10] - made.lists.score)
    assert (made.cost.sum() == 0.0) == (share == 0.0)


def test_twins_are_kept_apart_and_short_lists_stay_whole() -> None:
    vectors = unit_vectors(np.array([[1, 0], [1, 0], [0, 2]], np.float32))
    pool = TopN(
        np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]], np.int32),
        np.array([[3.0, 2.9, 2.0], [1.0, np.nan, np.nan], [np.nan] * 3]),
        np.array([3, 1, 0]),
    )
    made = diversify(pool, vectors, 0.6, 2)
    assert made.lists.item.tolist() == [[0, 2], [2, -1], [-1, -1]]
    assert made.cost[0].tolist() == pytest.approx([0.0, 0.9])
    assert np.isnan(made.cost[1, 1])
    assert made.lists.size.tolist() == [2, 1, 0]
