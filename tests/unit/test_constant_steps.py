"""Constant steps in blocks: the combine rule, its exactness, and what it is worth on small planted sets."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import slow_events as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planted import fit, planted, rmse, settings_of
from fm_spark.core.combine import Accumulator, merge
from fm_spark.core.constant_steps import (
    LOSSES,
    EventSettings,
    FmMove,
    combine_blocks,
    fm_on_grid,
    phi,
    run_events,
    train_pass,
)
from fm_spark.core.event_gradient import init_state
from fm_spark.core.event_predictions import SnapshotMean, predict_events
from fm_spark.core.event_strategy import EventGradients, EventLocalSteps
from fm_spark.core.fm_events import take_users
from fm_spark.core.fm_parameters import FmParameters, init_fm
from fm_spark.core.fm_rows import FmWorkspace
from fm_spark.core.pointwise_steps import Steps

K = 3


def options(loss, rate=0.05):
    return EventSettings(loss, Steps(*(np.float32(x) for x in (rate, rate, rate, 0.0, 0.02, 0.02, 0.02))), 2, 2)


def make(seed=0, n_users=20):
    fields, events, items, parameters = slow.random_events(seed, n_users=n_users, longest=9, k=K, std=0.2)
    return events, items, parameters, FmWorkspace(fields.n_rows)


def same(a, b):
    arrays = zip((*a.factors, *a.bias), (*b.factors, *b.bias), strict=True)
    return all(np.array_equal(x, y) for x, y in arrays) and (a.loss, a.events) == (b.loss, b.events)


def merge_all(sums):
    total = None
    for one in sums:
        total = merge(total, one)
    return total


@pytest.mark.parametrize("strategy", [EventLocalSteps(), EventGradients()])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_block_leaves_the_parameters_alone_and_repeats_itself(strategy, loss):
    events, items, parameters, work = make(1)
    before = parameters.copy()
    first = strategy.block(parameters, work, events, items, options(loss), (1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert not work.stats.any()
    assert not work.marks.any()
    assert same(first, strategy.block(parameters, work, events, items, options(loss), (1, 2, 3)))
    if not (isinstance(strategy, EventGradients) and loss != "bpr"):  # nothing random in those
        assert not same(first, strategy.block(parameters, work, events, items, options(loss), (2, 2, 3)))
    for part in (first.factors, first.bias):
        assert np.all(np.diff(part.rows) > 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_sums_do_not_depend_on_how_blocks_are_dealt_to_tasks(loss):
    events, items, parameters, work = make(3)
    strategy = EventLocalSteps()
    sums = [
        strategy.block(parameters, work, take_users(events, np.arange(i, 20, 5)), items, options(loss), (1, 0, i))
        for i in range(5)
    ]
    whole = merge_all(sums)
    assert same(whole, merge_all(sums[::-1]))
    assert same(whole, merge(merge(sums[3], sums[1]), merge(sums[4], merge(sums[0], sums[2]))))
    dense = Accumulator(parameters.factors.shape, len(parameters.linear), strategy.dtype)
    for one in sums:
        dense.add(one)
    assert same(whole, dense.take())


@pytest.mark.parametrize("loss", LOSSES)
def test_one_block_is_sequential_sgd(loss):
    """To the rounding of the grid; ``train_pass`` in place is the pass itself."""
    events, items, parameters, work = make(5)
    move = run_events(parameters, work, events, items, options(loss), np.random.default_rng(4))
    moved = parameters.copy()
    combine_blocks(moved, fm_on_grid(move))
    factors, linear = parameters.factors.copy(), parameters.linear.copy()
    factors[move.rows] += move.moved.factors
    linear[np.append(move.rows, -1)] += move.moved.linear
    np.testing.assert_allclose(moved.factors, factors, atol=2**-16)
    np.testing.assert_allclose(moved.linear, linear, atol=2**-22)
    if loss != "bpr":  # the same stream, without negatives drawn first
        again = parameters.copy()
        stats = np.zeros((len(linear), 2), np.float32)
        train_pass(again, stats, events, items, options(loss), np.empty((0, 0), np.int32), np.random.default_rng(4))
        np.testing.assert_allclose(again.factors, factors, atol=1e-6)
        np.testing.assert_allclose(again.linear, linear, atol=1e-6)


def block_of(moves, curvature):
    """Sum over blocks that moved one row and w0 by ``moves`` with the given C_p."""
    rows = np.zeros(1, np.int32)
    return merge_all(
        fm_on_grid(
            FmMove(
                rows, 1, FmParameters(np.full((1, 2), d, np.float32), np.full(2, d, np.float32)),
                np.full((2, 2), c, np.float32), 0.0, 1.0,
            )
        )
        for d, c in zip(moves, curvature, strict=True)
    )  # fmt: skip


def moved_by(total):
    parameters = FmParameters(np.zeros((1, 2), np.float32), np.zeros(2, np.float32))
    combine_blocks(parameters, total)
    values = np.append(parameters.factors.reshape(-1), parameters.linear)
    np.testing.assert_allclose(values, values[0], atol=1e-4)  # w0, linear weights and factors obey one rule
    return values[-1]


displacements = st.lists(st.floats(-1.0, 1.0, width=16), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(displacements, st.floats(0.0, 1e-4))
def test_small_steps_add_up(moves, curvature):
    assert moved_by(block_of(moves, [curvature] * len(moves))) == pytest.approx(sum(moves), rel=2e-3, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(displacements, st.floats(30.0, 500.0))
def test_saturated_rows_average(moves, curvature):
    assert moved_by(block_of(moves, [curvature] * len(moves))) == pytest.approx(np.mean(moves), abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1.0), st.floats(1e-3, 20.0), st.integers(1, 16))
def test_equal_blocks_go_as_far_as_one_long_pass(d, c, blocks):
    """mean (1 - exp(-C)) / (1 - exp(-C / P)), between the average and the sum."""
    expected = d * np.expm1(-c * blocks) / np.expm1(-c)
    assert moved_by(block_of([d] * blocks, [c] * blocks)) == pytest.approx(expected, rel=2e-3, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 50.0)), min_size=1, max_size=9))
def test_the_move_lies_between_zero_and_the_sum_and_reaches_the_least_block(blocks):
    moves, curvature = zip(*blocks, strict=True)
    value = moved_by(block_of(moves, curvature))
    assert min(moves) - 1e-3 <= value <= sum(moves) + 1e-3


def test_phi():
    np.testing.assert_allclose(phi(np.array([0.0, 1e-9, 1.0, 800.0])), [1.0, 1.0, 1 / (1 - np.exp(-1)), 800.0])


def test_an_empty_block_learns_nothing():
    events, items, parameters, work = make(0)
    nobody = take_users(events, np.empty(0, np.int64))
    silent = take_users(events, np.flatnonzero(np.diff(events.ptr) == 0))
    for loss in LOSSES:
        for block in (nobody, silent):
            for strategy in (EventLocalSteps(), EventGradients()):
                total = strategy.block(parameters, work, block, items, options(loss), (0, 0, 0))
                assert total.loss == total.events == 0
                after = parameters.copy()
                strategy.apply(after, init_state(len(parameters.factors)), total, options(loss))
                np.testing.assert_allclose(after.factors, parameters.factors)
                np.testing.assert_allclose(after.linear, parameters.linear)


def test_a_user_with_one_event_and_k_of_one():
    fields, events, items, _ = slow.random_events(7, n_users=30, longest=1, k=1)
    parameters, work = init_fm(fields, 1, 0.05, 0.5, 1), FmWorkspace(fields.n_rows)
    for loss in LOSSES:
        total = EventLocalSteps().block(parameters, work, events, items, options(loss), (0, 0, 0))
        assert total.events > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_divergence_is_an_error_and_the_workspace_can_be_used_again(loss):
    events, items, parameters, work = make(2)
    parameters.factors[:] *= 1e6
    before = parameters.copy()
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        EventLocalSteps().block(parameters, work, events, items, options(loss, rate=10.0), (0, 0, 0))
    assert np.array_equal(parameters.factors, before.factors)
    assert not work.stats.any()


@pytest.mark.parametrize("strategy", [EventLocalSteps(), EventGradients()])
@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_the_loss(strategy, loss):
    events, items, parameters, work = make(2, 60)
    losses = []
    state = init_state(len(parameters.factors))
    for epoch in range(30):
        total = strategy.block(parameters, work, events, items, options(loss), (1, epoch, 0))
        strategy.apply(parameters, state, total, options(loss))
        losses.append(total.loss / total.events)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_gradient_sums_need_a_state():
    events, items, parameters, work = make(2)
    total = EventGradients().block(parameters, work, events, items, options("squared"), (1, 0, 0))
    with pytest.raises(ValueError, match="init_state"):
        EventGradients().apply(parameters, None, total, options("squared"))


@lru_cache
def small():
    """800 users x 60 items, 30,000 ratings of a machine with two factors."""
    return planted(800, 60, 30_000, 2, 0.76)


def test_the_planted_machine_is_found():
    data = small()
    assert rmse(data, fit(data, 1, 1, "rule", 30)) < 1.04 * data.floor
    constant = np.std(data.held.label)
    assert constant > 1.1 * data.floor


@pytest.mark.parametrize("blocks", [8, 32])
def test_blocks_learn_as_much_as_one(blocks):
    data = small()
    error = {rule: rmse(data, fit(data, blocks, 2, rule, 8)) for rule in ("rule", "average", "sum")}
    sequential = rmse(data, fit(data, 1, 1, "rule", 8))
    assert error["rule"] < sequential + 0.005
    assert error["average"] > error["rule"] + 0.01
    assert not error["sum"] < error["rule"] + 0.01  # worse, or not a number


def test_probabilities_are_calibrated():
    """Labels drawn from a planted machine's probabilities: predicted and observed shares agree in every fifth."""
    data = small()
    rng = np.random.default_rng(0)
    parts = []
    for part in (data.train, data.held):
        p = 1 / (1 + np.exp(-2 * (part.label - 3.5)))
        parts.append(part._replace(label=(rng.random(len(p)) < p).astype(np.float32)))
    parameters = init_fm(data.fields, 2, 0.05, 0.0, 1)
    stats = np.zeros((data.fields.n_rows + 1, 2), np.float32)
    for epoch in range(15):
        one = settings_of(epoch, l2=0.1)._replace(loss="logistic")
        train_pass(parameters, stats, parts[0], data.items, one, np.empty((0, 0), np.int32), rng)
    p = predict_events(parameters, parts[1], data.items, "logistic")
    for group in np.array_split(np.argsort(p), 5):
        assert p[group].mean() == pytest.approx(parts[1].label[group].mean(), abs=0.06)


def test_bpr_ranks_planted_preferences():
    """Users of two kinds and items of two kinds, as on a checkerboard: a user's events are all of his own kind."""
    data = planted(200, 40, 4_000, 2, 0.76)
    keep = (data.train.user % 2) == (data.train.item % 2)
    ptr = np.concatenate([[0], np.cumsum(keep)])[data.train.ptr]
    events = data.train._replace(
        ptr=ptr, context=data.train.context._replace(ptr=np.zeros(int(keep.sum()) + 1, np.int64)),
        **{name: getattr(data.train, name)[keep] for name in ("user", "item", "label", "weight")},
    )  # fmt: skip
    items = data.items._replace(cumulative=np.linspace(0, 1, 41)[1:])
    parameters, work = init_fm(data.fields, 4, 0.1, 0.0, 1), FmWorkspace(data.fields.n_rows)
    for epoch in range(40):
        strategy = EventLocalSteps()
        total = strategy.block(parameters, work, events, items, options("bpr", 0.1), (0, epoch, 0))
        strategy.apply(parameters, None, total, options("bpr"))
    own = predict_events(parameters, events, items, "bpr")
    swapped = events._replace(item=np.where((events.item - 200) % 2 == 0, events.item + 1, events.item - 1))
    assert np.mean(own > predict_events(parameters, swapped, items, "bpr")) > 0.9


def test_the_mean_of_late_snapshots_predicts_as_well_as_the_mean_prediction():
    data = small()
    parameters = init_fm(data.fields, 4, 0.05, 3.5, 1)
    stats = np.zeros((data.fields.n_rows + 1, 2), np.float32)
    mean, predictions = SnapshotMean(), []
    for epoch in range(16):
        one = settings_of(0)._replace(loss="squared")
        train_pass(
            parameters, stats, data.train, data.items, one, np.empty((0, 0), np.int32), np.random.default_rng(epoch)
        )
        if epoch >= 8:
            mean.add(parameters)
            predictions.append(predict_events(parameters, data.held, data.items, "squared"))
    together = np.sqrt(np.mean(np.square(np.mean(predictions, axis=0) - data.held.label)))
    assert rmse(data, mean.take()) == pytest.approx(together, abs=0.002)
