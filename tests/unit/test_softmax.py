"""Sampled softmax: by hand, against finite differences of the full machine, weights, masking."""

import numpy as np

from fm_spark.core.gradient import Minibatch, Settings, Workspace, add_gradient, make_sampler
from fm_spark.core.parameters import Parameters
from fm_spark.core.plan import positives
from fm_spark.core.softmax import softmax_gradient
from tests.unit import slow


def test_loss_by_hand():
    """Scores 1 (target) against 0 and 2: loss = -log(e / (e + 1 + e^2))."""
    g = softmax_gradient(
        np.ones((1, 1), np.float32),
        np.array([0], np.int32),
        np.array([1, 2], np.int32),
        np.array([[1.0], [0.0], [2.0]], np.float32),
        np.zeros(3, np.float32),
        np.zeros(3, np.float32),
        np.ones(1, np.float32),
    )
    np.testing.assert_allclose(g.loss, -np.log(np.e / (np.e + 1 + np.e**2)), rtol=1e-6)
    np.testing.assert_allclose(g.negative_bias.sum() + g.target_bias.sum(), 0.0, atol=1e-6)


def test_a_negative_that_is_the_target_is_masked():
    factors, zeros = np.array([[1.0], [0.5]], np.float32), np.zeros(2, np.float32)
    one, target = np.ones((1, 1), np.float32), np.array([0], np.int32)
    both = [
        softmax_gradient(one, target, np.array(negative, np.int32), factors, zeros, zeros, one[0])
        for negative in ([1], [0, 1])
    ]
    assert both[0].loss == both[1].loss
    assert both[1].negative_bias[0] == 0.0


def setup(seed=0, weight=None):
    rng = np.random.default_rng(seed)
    n_items, k, decays = 6, 3, (0.5, 0.9)
    block = slow.random_sequences(rng, 3, n_items, 8)
    if weight is not None:
        block = block._replace(weight=np.full(len(block.item), weight, np.float32))
    rows = (2 * len(decays) + 1) * n_items
    parameters = Parameters(
        rng.normal(size=(rows, k)).astype(np.float32) * 0.5, rng.normal(size=n_items).astype(np.float32),
        np.full(rows, 0.1), np.full(n_items, 0.1),
    )  # fmt: skip
    found = positives(block)
    per_user = np.diff(found.ptr)
    used = np.flatnonzero(per_user > 0)
    ptr = np.concatenate([[0], np.cumsum(per_user[used])]).astype(np.int64)
    batch = Minibatch(
        ptr, found.start[used], found.position, block.item[found.position], rng.integers(0, n_items, 4).astype(np.int32)
    )
    return block, parameters, batch, Settings(decays, 0.1, 0.0, 0.0, 8, 4, 0.0), n_items


def gradient(parameters, block, batch, options, n_items):
    work = Workspace(parameters.factors.shape, n_items)
    correction = make_sampler(np.arange(n_items), 0.5).correction
    loss, weight, n, m = add_gradient(parameters, work, block, batch, options, correction)
    dense, dense_bias = np.zeros(parameters.factors.shape), np.zeros(n_items)
    dense[work.factors.rows[:n]] = work.factors.grad[:n]
    dense_bias[work.bias.rows[:m]] = work.bias.grad[:m, 0]
    return loss, weight, dense, dense_bias


def test_gradient_equals_finite_differences_of_the_loss():
    """Through history, item factors and biases at once; the loss itself is recomputed from explicit bags."""
    block, parameters, batch, options, n_items = setup()
    correction = make_sampler(np.arange(n_items), 0.5).correction.astype(np.float64)
    user_of = np.repeat(batch.chunk_start, np.diff(batch.chunk_ptr))

    def loss(factors, bias):
        total = 0.0
        for j, p in enumerate(batch.position):
            begin = user_of[j]
            q = slow.query(block.item[begin:p], block.liked[begin:p], options.decays, factors, n_items)
            score = bias + factors[-n_items:] @ q
            others = [score[i] - correction[i] for i in batch.negative if i != batch.target[j]]
            own = score[batch.target[j]]
            total += float(block.weight[p]) * (np.log(np.exp([own, *others]).sum()) - own)
        return total

    found, _, dense, dense_bias = gradient(parameters, block, batch, options, n_items)
    factors, bias = parameters.factors.astype(np.float64), parameters.bias.astype(np.float64)
    np.testing.assert_allclose(found, loss(factors, bias), rtol=1e-5)
    step = 1e-5
    for index in np.ndindex(factors.shape):
        up, down = factors.copy(), factors.copy()
        up[index] += step
        down[index] -= step
        np.testing.assert_allclose(dense[index], (loss(up, bias) - loss(down, bias)) / (2 * step), atol=2e-4)
    for i in range(n_items):
        up, down = bias.copy(), bias.copy()
        up[i] += step
        down[i] -= step
        np.testing.assert_allclose(dense_bias[i], (loss(factors, up) - loss(factors, down)) / (2 * step), atol=2e-4)


def test_a_weight_of_two_is_the_event_twice():
    block, parameters, batch, options, n_items = setup(seed=5, weight=1.0)
    once = gradient(parameters, block, batch, options, n_items)
    twice = gradient(parameters, block._replace(weight=block.weight * 2), batch, options, n_items)
    np.testing.assert_allclose(twice[0], 2 * once[0], rtol=1e-6)
    np.testing.assert_allclose(twice[2], 2 * once[2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(twice[3], 2 * once[3], rtol=1e-4, atol=1e-6)
