from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from fm_spark.ranking.cluster_matching import Change, Earlier, adjusted_rand_index, change_rows, match_clusters


def earlier(cluster_id: list[int], next_id: int = 0, first_item: int = 0) -> Earlier:
    items = first_item + np.arange(len(cluster_id))
    return Earlier("before", items, np.array(cluster_id, dtype=np.int32), next_id)


def clusters(of: list[int]) -> np.ndarray:
    return np.array(of, dtype=np.int32)


def test_the_first_run_numbers_its_clusters_from_0() -> None:
    found = match_clusters(np.arange(4), clusters([0, 0, 1, 1]), None)
    assert found.ids.tolist() == [0, 1]
    assert (found.stability, found.matched_run_id, found.next_id) == (None, None, 2)
    assert found.changes == [Change(0, "born", 2, 0, None, 0), Change(1, "born", 2, 0, None, 0)]


def test_a_permutation_is_undone() -> None:
    before = [7, 7, 7, 2, 2, 4, 4, 4, 4]
    found = match_clusters(np.arange(9), clusters([1, 1, 1, 2, 2, 0, 0, 0, 0]), earlier(before, 8))
    assert found.ids.tolist() == [4, 7, 2]
    assert (found.stability, found.matched_run_id, found.next_id) == (1.0, "before", 8)
    assert found.changes == [
        Change(2, "kept", 2, 2, 2, 2), Change(4, "kept", 4, 4, 4, 4), Change(7, "kept", 3, 3, 7, 3)
    ]  # fmt: skip


def test_a_split_keeps_the_larger_part_and_the_other_is_born_with_an_id_nobody_had() -> None:
    found = match_clusters(np.arange(8), clusters([1, 1, 0, 0, 0, 2, 2, 2]), earlier([0] * 5 + [1] * 3, 6))
    assert found.ids.tolist() == [0, 6, 1]
    assert found.next_id == 7
    assert found.changes[-1] == Change(6, "born", 2, 0, 0, 2)


def test_what_is_merged_is_dead_and_says_where_its_items_are() -> None:
    found = match_clusters(np.arange(8), clusters([0] * 8), earlier([3] * 5 + [1] * 3))
    assert found.ids.tolist() == [3]
    assert found.changes == [Change(1, "dead", 0, 3, 3, 3), Change(3, "kept", 8, 5, 3, 5)]
    assert found.next_id == 4


def test_the_pairs_have_the_most_items_in_common_in_all() -> None:
    """One by one, the largest overlap first, would pair 0 with 0 (6 items) and leave 1 and 1 (none)."""
    before = [0] * 11 + [1] * 5
    now = [0] * 6 + [1] * 5 + [0] * 5
    found = match_clusters(np.arange(16), clusters(now), earlier(before))
    assert found.ids.tolist() == [1, 0]


def test_clusters_that_share_next_to_nothing_are_not_the_same() -> None:
    """0 takes nearly everything; what is left, 1, would go on with 2 of 30 items."""
    found = match_clusters(np.arange(60), clusters([0] * 58 + [1] * 2), earlier([0] * 30 + [1] * 30))
    assert found.changes == [
        Change(0, "kept", 58, 30, 0, 30), Change(1, "dead", 0, 30, 0, 28), Change(2, "born", 2, 0, 1, 2)
    ]  # fmt: skip


def test_without_items_in_common_everything_is_new_and_stability_unknown() -> None:
    found = match_clusters(np.arange(4), clusters([0, 0, 1, 1]), earlier([0, 0, 5, 5], first_item=100))
    assert found.ids.tolist() == [6, 7]
    assert found.stability is None
    assert [(change.cluster_id, change.status, change.counterpart_id) for change in found.changes] == [
        (0, "dead", None), (5, "dead", None), (6, "born", None), (7, "born", None)
    ]  # fmt: skip


def test_only_items_of_both_runs_count_and_ids_may_be_words() -> None:
    names = np.array(["a", "b", "c", "d", "new"], dtype=object)
    before = Earlier("r", np.array(["d", "gone", "a", "b"], dtype=object), clusters([9, 9, 3, 3]), 10)
    found = match_clusters(names, clusters([0, 0, 0, 1, 1]), before)
    assert found.ids.tolist() == [3, 9]
    assert found.changes == [Change(3, "kept", 3, 2, 3, 2), Change(9, "kept", 2, 2, 9, 1)]


def test_ids_of_dead_clusters_are_never_given_again() -> None:
    """Over a line of runs, each matched to the one before it."""
    rng = np.random.default_rng(5)
    before, born, dead = None, set(), set()
    for run in range(12):
        k = int(rng.integers(2, 7))
        now = clusters([*range(k), *rng.integers(0, k, 30).tolist()])
        found = match_clusters(np.arange(len(now)), now, before)
        new = {change.cluster_id for change in found.changes if change.status == "born"}
        assert not new & (born | dead)
        assert len(set(found.ids.tolist())) == k
        assert max(found.ids) < found.next_id
        born |= new
        dead |= {change.cluster_id for change in found.changes if change.status == "dead"}
        assert not dead & set(found.ids.tolist())
        before = Earlier(f"r{run}", np.arange(len(now)), found.ids[now], found.next_id)
    assert dead


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_stability_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    shared = np.zeros((5, 5), dtype=np.int64)
    np.add.at(shared, tuple(np.array(pairs).T), 1)
    one, other = zip(*pairs, strict=True)
    assert adjusted_rand_index(shared) == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k_before=st.integers(1, 5), k=st.integers(1, 5))
def test_no_other_pairing_has_more_items_in_common(seed: int, k_before: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    before = np.concatenate([np.arange(k_before), rng.integers(0, k_before, 20)])
    now = clusters([*range(k), *rng.integers(0, k, 20).tolist()])
    n = min(len(before), len(now))
    found = match_clusters(np.arange(len(now)), now, earlier(before.tolist()))
    shared = np.array([[((before[:n] == i) & (now[:n] == j)).sum() for j in range(k)] for i in range(k_before)])
    padded = np.zeros((5, 5), dtype=np.int64)
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    shared[shared < 0.1 * either] = 0
    padded[:k_before, :k] = shared
    best = max(sum(padded[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(5)))
    assert sum(shared[i, j] for j, i in enumerate(found.ids.tolist()) if i < k_before) == best


def test_the_same_input_gives_the_same_ids_in_any_order_of_the_earlier_rows() -> None:
    rng = np.random.default_rng(2)
    before, now = rng.integers(0, 6, 200), clusters([*range(6), *rng.integers(0, 6, 194).tolist()])
    given_order = match_clusters(np.arange(200), now, earlier(before.tolist()))
    order = rng.permutation(200)
    other = Earlier("before", order, before[order].astype(np.int32), 0)
    again = match_clusters(np.arange(200), now, other)
    assert given_order.ids.tolist() == again.ids.tolist()
    assert given_order.changes == again.changes


def test_rows_keep_whole_numbers_beside_gaps() -> None:
    rows = change_rows(match_clusters(np.arange(4), clusters([0, 0, 1, 1]), earlier([5, 5], 9)))
    assert rows["counterpart_id"].tolist() == [5, None]
    assert all(isinstance(value, int) for value in rows["counterpart_id"][:1])
    assert rows["next_id"].tolist() == [10, 10]
    assert rows["matched_run_id"].tolist() == ["before", "before"]
