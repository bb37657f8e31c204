"""The recursion along a user's events against explicit bags, and its gradient against finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core import history
from fm_spark.core.machine import Machine
from fm_spark.core.queries import user_queries
from tests.unit import slow


def ask(factors, decays, block, n_items, chunks):
    """Queries of chunks [(user, positions)] through the kernel."""
    position = np.concatenate([p for _, p in chunks]).astype(np.int64)
    ptr = np.concatenate([[0], np.cumsum([len(p) for _, p in chunks])]).astype(np.int64)
    start = np.array([block.ptr[u] for u, _ in chunks], dtype=np.int64)
    where = (
        n_items,
        np.array(decays),
        history.windows(np.array(decays)),
        block.item,
        block.liked,
        ptr,
        start,
        position,
    )
    out = np.empty((len(position), factors.shape[1]), np.float32)
    history.forward(factors, *where, out)
    return out, where


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.sampled_from([1, 3, 8]), decays=st.sampled_from([(0.5,), (0.3, 0.98)]))
def test_queries_equal_explicit_bags(seed, k, decays):
    rng = np.random.default_rng(seed)
    n_items = 7
    block = slow.random_sequences(rng, 5, n_items, 40)
    factors = rng.normal(size=((2 * len(decays) + 1) * n_items, k)).astype(np.float32)
    chunks = []
    for u in range(block.n_users):
        places = np.arange(block.ptr[u], block.ptr[u + 1] + 1)
        chunks.append((u, np.sort(rng.choice(places, size=rng.integers(0, len(places) + 1), replace=False))))
    out, _ = ask(factors, decays, block, n_items, chunks)
    expected = [
        slow.query(block.item[block.ptr[u] : p], block.liked[block.ptr[u] : p], decays, factors, n_items)
        for u, places in chunks
        for p in places
    ]
    np.testing.assert_allclose(out, np.array(expected).reshape(-1, k), atol=2e-5)


def test_history_longer_than_the_window():
    """What the window leaves out is below the rounding of float32."""
    decays, n_items = (0.5, 0.9), 11
    rng = np.random.default_rng(3)
    block = slow.random_sequences(rng, 1, n_items, 5000)
    assert len(block.item) > 2 * history.windows(np.array(decays)).max()
    factors = rng.normal(size=(5 * n_items, 4)).astype(np.float32)
    end = len(block.item)
    out, _ = ask(factors, decays, block, n_items, [(0, np.array([1, end // 2, end]))])
    expected = [slow.query(block.item[:p], block.liked[:p], decays, factors, n_items) for p in (1, end // 2, end)]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gradient_is_the_transposed_recursion(seed):
    """<forward(F), G> is linear in F, so its gradient is exact: compare it with the explicit bags' one."""
    rng = np.random.default_rng(seed)
    decays, n_items, k = (0.4, 0.95), 6, 3
    block = slow.random_sequences(rng, 3, n_items, 30)
    chunks = [(u, np.arange(block.ptr[u], block.ptr[u + 1] + 1)[:: rng.integers(1, 4)]) for u in range(3)]
    rows = 5 * n_items
    _, where = ask(np.zeros((rows, k), np.float32), decays, block, n_items, chunks)
    upstream = rng.normal(size=(len(where[-1]), k)).astype(np.float32)
    grad, place = np.full((rows, k), np.nan, np.float32), np.zeros(rows, np.int32)
    listed = np.empty(rows, np.int32)
    n = history.backward(grad, place, listed, 0, *where, upstream)
    expected = np.zeros((rows, k))
    j = 0
    for u, places in chunks:
        for p in places:
            for d, decay in enumerate(decays):
                begin = block.ptr[u]
                bag = slow.history_bag(block.item[begin:p], block.liked[begin:p], decay, n_items)
                expected[2 * d * n_items : (2 * d + 2) * n_items] += np.outer(bag, upstream[j])
            j += 1
    assert sorted(listed[:n]) == list(np.flatnonzero(place))
    np.testing.assert_allclose(grad[place[listed[:n]] - 1], expected[listed[:n]], atol=1e-4)
    untouched = np.setdiff1d(np.arange(rows), listed[:n])
    np.testing.assert_allclose(expected[untouched], 0.0, atol=1e-6)


def test_user_queries_of_users_with_and_without_events():
    rng = np.random.default_rng(0)
    n_items, k, decays = 5, 2, (0.8,)
    block = slow.random_sequences(rng, 6, n_items, 4)
    tables = rng.normal(size=(3 * n_items, k)).astype(np.float32)
    machine = Machine(
        np.array(decays), tables[:-n_items].reshape(1, 2, n_items, k), tables[-n_items:], np.zeros(n_items)
    )
    found = user_queries(block, machine)
    for u in range(block.n_users):
        events = slice(block.ptr[u], block.ptr[u + 1])
        expected = slow.query(block.item[events], block.liked[events], decays, tables, n_items)
        np.testing.assert_allclose(found[u], expected, atol=1e-5)
    assert any(np.diff(block.ptr) == 0)


@pytest.mark.parametrize("decay", [0.01, 0.3, 0.98])
def test_window_reaches_until_terms_are_negligible(decay):
    window = int(history.windows(np.array([decay]))[0])
    assert decay**window <= history.NEGLIGIBLE * 1.01
    assert decay ** (window - 2) > history.NEGLIGIBLE or window == 1
