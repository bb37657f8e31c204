"""Items with side features: composed rows score like the full pairwise machine, and can be taken apart again."""

import numpy as np
from scipy import sparse

from fm_spark.core.parameters import Parameters
from fm_spark.core.side import SideFeatures, compose, no_progress, own_rows, share_move
from tests.unit import slow


def make(seed=0, n_items=6, n_side=3, k=4):
    rng = np.random.default_rng(seed)
    x = sparse.csr_matrix((rng.random((n_items, n_side)) < 0.5) * 0.7, dtype=np.float32)
    side = SideFeatures(x, rng.normal(size=(n_side, k)).astype(np.float32), rng.normal(size=n_side).astype(np.float32))
    return rng, side, rng.normal(size=(n_items, k)).astype(np.float32), rng.normal(size=n_items)


def test_composed_rows_equal_the_pairwise_machine():
    """Features: 2 history values, one-hot item, side features; y = const(query) + bias_i + <s_q, s_i>."""
    rng, side, own, own_bias = make()
    n_items = side.x.shape[0]
    factors, bias = compose(side, own, own_bias)
    history = rng.normal(size=(2, own.shape[1]))
    values = np.array([0.6, 0.8])
    w = np.concatenate([[0.0, 0.0], own_bias, side.bias])
    v = np.concatenate([history, own, side.factors]).astype(np.float64)
    query = values @ history
    scores, full = bias + factors @ query, []
    for i in range(n_items):
        x = np.concatenate([values, np.eye(n_items)[i], side.x.toarray()[i]])
        full.append(slow.pairwise_fm(0.0, w, v, x))
    np.testing.assert_allclose(np.diff(scores), np.diff(full), rtol=1e-5, atol=1e-6)


def test_own_rows_are_the_inverse_of_compose():
    _, side, own, own_bias = make(1)
    factors, bias = compose(side, own, own_bias)
    again, again_bias = own_rows(side, factors, bias.astype(np.float32))
    np.testing.assert_allclose(again, own, atol=1e-6)
    np.testing.assert_allclose(again_bias, own_bias, atol=1e-5)


def test_untouched_items_follow_the_features_they_share():
    rng = np.random.default_rng(2)
    x = sparse.csr_matrix(np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32))
    side = no_progress(x, 2)
    before = rng.normal(size=(4, 2)).astype(np.float32)
    after = before.copy()
    after[:2] += 1.0
    parameters = Parameters(after.copy(), np.zeros(4, np.float32), np.zeros(4), np.zeros(4))
    share_move(side, parameters, before, np.zeros(4, np.float32))
    np.testing.assert_allclose(parameters.item_factors[:2], after[:2])  # what was learnt stands
    np.testing.assert_allclose(side.factors[0], 2.0 / 3.0, rtol=1e-5)  # ridge: 2 / (2 + 1)
    np.testing.assert_allclose(parameters.item_factors[2], before[2] + 2.0 / 3.0, rtol=1e-5)
    np.testing.assert_allclose(parameters.item_factors[3], before[3])
