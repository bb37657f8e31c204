"""The machine over events: kernels against the definition, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import slow_events as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core.combine import GRADIENT_GRID, LOSS_GRID, merge
from fm_spark.core.constant_steps import LOSSES, EventSettings, train_pass
from fm_spark.core.event_gradient import event_gradient_sum, user_negatives
from fm_spark.core.event_predictions import SnapshotMean, predict_events
from fm_spark.core.fm_events import Fields, bag_of_items, no_features, take_features, take_users
from fm_spark.core.fm_parameters import FmParameters, init_fm
from fm_spark.core.fm_rows import FmWorkspace, mixed_order, touched_rows, visit_users
from fm_spark.core.pairwise import draw_negatives
from fm_spark.core.pointwise_steps import Steps, Visits, sgd, sgd_user_item

NO_NEGATIVES = np.empty((0, 0), np.int32)


def steps(rate=0.05, l2=0.0, l2_bag=0.0):
    return Steps(*(np.float32(x) for x in (rate, rate, rate, l2, l2, l2, l2_bag)))


def options(loss, **kwargs):
    return EventSettings(loss, steps(**kwargs), negatives=2)


def same(a, b):
    arrays = zip((*a.factors, *a.bias), (*b.factors, *b.bias), strict=True)
    return all(np.array_equal(x, y) for x, y in arrays) and (a.loss, a.events) == (b.loss, b.events)


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "n_users": st.integers(1, 6),
        "n_items": st.integers(1, 7),
        "k": st.sampled_from([1, 3, 16]),
        "longest": st.integers(0, 6),
        "users": st.booleans(),
        "extras": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_predictions_are_the_definition(shape):
    _, events, items, parameters = slow.random_events(**shape)
    expected = [slow.event_value(parameters, events, items, e) for e in range(len(events.item))]
    np.testing.assert_allclose(predict_events(parameters, events, items, "squared"), expected, rtol=1e-4, atol=1e-5)
    p = 1.0 / (1.0 + np.exp(-np.array(expected)))
    np.testing.assert_allclose(predict_events(parameters, events, items, "logistic"), p, rtol=1e-4, atol=1e-5)


def test_bpr_scores_differ_as_the_definition():
    _, events, items, parameters = slow.random_events(3)
    for e in range(len(events.item)):
        other = events._replace(item=np.full_like(events.item, items.offset + 2))
        difference = slow.event_value(parameters, events, items, e) - slow.event_value(parameters, other, items, e)
        scores = [predict_events(parameters, x, items, "bpr")[e] for x in (events, other)]
        np.testing.assert_allclose(scores[0] - scores[1], difference, rtol=1e-4, atol=1e-5)


def dense_gradient(total, parameters):
    factors, linear = np.zeros(parameters.factors.shape), np.zeros(parameters.linear.shape)
    factors[total.factors.rows] = total.factors.move / GRADIENT_GRID
    linear[total.bias.rows] = total.bias.move[:, 0] / GRADIENT_GRID
    return factors, linear


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_finite_differences(loss, seed):
    _, events, items, parameters = slow.random_events(seed, longest=3, k=(1, 3)[seed % 2], users=seed != 2)
    exact = FmParameters(*(array.astype(np.float64) for array in parameters))
    negative = user_negatives(events, items, 2, (5, 1)) if loss == "bpr" else None
    total = event_gradient_sum(parameters, events, items, options(loss), (5, 1))
    assert total.loss / LOSS_GRID == pytest.approx(slow.total_loss(exact, events, items, loss, negative), rel=1e-4)
    factors, linear = dense_gradient(total, parameters)
    for array, gradient in ((exact.factors, factors), (exact.linear, linear)):
        for place in np.ndindex(array.shape):
            keep = array[place]
            values = []
            for h in (1e-4, -1e-4):
                array[place] = keep + h
                values.append(slow.total_loss(exact, events, items, loss, negative))
            array[place] = keep
            assert gradient[place] == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3, abs=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_small_step_of_sgd_is_the_gradient(loss):
    """With a rate near zero all updates of a pass start from the same point; L2 counts once a touch."""
    _, events, items, parameters = slow.random_events(11, n_users=8)
    one = options(loss, rate=3e-5)
    negative = user_negatives(events, items, 2, (5, 1)) if loss == "bpr" else NO_NEGATIVES
    factors, linear = dense_gradient(event_gradient_sum(parameters, events, items, one, (5, 1)), parameters)
    moved = parameters.copy()
    stats = np.zeros((len(parameters.linear), 2), np.float32)
    train_pass(moved, stats, events, items, one, negative, np.random.default_rng(0))
    np.testing.assert_allclose((moved.factors - parameters.factors) / -3e-5, factors, atol=0.05, rtol=0.02)
    np.testing.assert_allclose((moved.linear - parameters.linear) / -3e-5, linear, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_is_the_second_derivative(loss):
    """For each event alone: weight * loss'' * (dy / dtheta)^2 = gradient^2 * loss'' / (weight * loss'^2)."""
    _, events, items, parameters = slow.random_events(6, n_users=6)
    one = EventSettings(loss, steps(0.01), negatives=1)
    for u in np.flatnonzero(np.diff(events.ptr)):
        user = take_users(events, np.array([u]))
        e = int(np.argmax(user.weight))
        at = np.array([e])
        user = user._replace(
            ptr=np.array([0, 1]), context=take_features(user.context, at),
            **{name: getattr(user, name)[at] for name in ("user", "item", "label", "weight")},
        )  # fmt: skip
        negative = user_negatives(user, items, 1, (5, 1)) if loss == "bpr" else NO_NEGATIVES
        if loss == "bpr" and negative[0, 0] == user.item[0]:
            continue
        y = slow.event_value(parameters, user, items, 0)
        if loss == "bpr":
            y -= slow.event_value(parameters, user, items, 0, int(negative[0, 0]))
        p = 1 / (1 + np.exp(-y))
        first = {"squared": y - user.label[0], "logistic": p - user.label[0], "bpr": p - 1}[loss]
        second = 1.0 if loss == "squared" else p * (1 - p)
        factors, linear = dense_gradient(event_gradient_sum(parameters, user, items, one, (5, 1)), parameters)
        stats = np.zeros((len(parameters.linear), 2), np.float32)
        train_pass(parameters.copy(), stats, user, items, one, negative, np.random.default_rng(0))
        scale = 0.01 * second / (user.weight[0] * first**2)
        # with bpr a static feature that both items share is stepped twice, once for each item
        shared = np.zeros(len(linear), np.bool_)
        if loss == "bpr":
            lists = [
                {row for row, _ in slow.features_of(items.side, int(i) - items.offset)}
                for i in (user.item[0], negative[0, 0])
            ]
            shared[list(lists[0] & lists[1])] = True
        np.testing.assert_allclose(
            stats[:-1, 0][~shared[:-1]], scale * np.square(factors).mean(axis=1)[~shared[:-1]], rtol=5e-3, atol=1e-6
        )
        np.testing.assert_allclose(stats[:, 1][~shared], scale * np.square(linear)[~shared], rtol=5e-3, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), loss=st.sampled_from(["squared", "logistic"]), k=st.sampled_from([1, 5, 16]))
def test_the_fast_kernel_is_the_general_one(seed, loss, k):
    _, events, items, parameters = slow.random_events(seed, k=k, extras=False, n_users=9)
    order = mixed_order(len(events.item), np.random.default_rng(seed))
    visits = Visits(order.astype(np.int64), order + np.int64(1), np.zeros(len(order), np.int64))
    a, b = parameters.copy(), parameters.copy()
    stats_a, stats_b = (np.zeros((len(parameters.linear), 2), np.float32) for _ in range(2))
    kind = LOSSES.index(loss)
    loss_a = sgd_user_item(a, events, kind, steps(0.1, 0.02), order, stats_a)
    loss_b = sgd(b, events, items.side, items.offset, kind, steps(0.1, 0.02), visits, stats_b)
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    for x, y in (*zip(a, b, strict=True), (stats_a, stats_b)):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_two_is_the_event_twice(loss):
    """In the gradient exactly; one step of weight two is two small steps."""
    _, events, items, parameters = slow.random_events(5, extras=False)
    if loss == "bpr":  # twice the same negatives
        items = items._replace(cumulative=np.array([0, 0, 1, 1, 1, 1.0]))
    n = len(events.item)
    events = events._replace(weight=np.ones(n, np.float32))
    heavy = events._replace(weight=np.full(n, 2, np.float32))
    double = events._replace(
        ptr=2 * events.ptr,
        **{name: np.repeat(getattr(events, name), 2) for name in ("user", "item", "label", "weight")},
        context=no_features(2 * n),
    )
    one = options(loss, rate=1e-3, l2=0.5)
    a, b = (event_gradient_sum(parameters, x, items, one, (5, 1)) for x in (heavy, double))
    assert (a.events, a.loss) == (b.events, pytest.approx(b.loss, abs=2 * n))
    np.testing.assert_allclose(a.factors.move, b.factors.move, atol=2 * n)
    np.testing.assert_allclose(a.bias.move, b.bias.move, atol=2 * n)
    moved = []
    for x in (heavy, double):
        at, stats = parameters.copy(), np.zeros((len(parameters.linear), 2), np.float32)
        negative = draw_negatives(items.cumulative, (len(x.item), 2), items.offset, np.random.default_rng(0))
        train_pass(at, stats, x, items, one, negative, np.random.default_rng(0))
        moved.append((at.factors - parameters.factors, at.linear - parameters.linear, stats))
    for x, y in zip(*moved, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=3e-4)
        assert np.abs(y).max(initial=0) > 2e-3


def test_l2_shrinks_a_row_once_a_touch():
    """Events of weight w whose error is zero: only L2 moves the parameters."""
    fields = Fields(2, 1)
    events = slow.random_events(0, n_users=2, n_items=1, extras=False)[1]
    events = events._replace(
        ptr=np.array([0, 3, 3]), user=np.zeros(3, np.int32), item=np.full(3, 2, np.int32),
        label=np.zeros(3, np.float32), weight=np.full(3, 2, np.float32), context=no_features(3),
    )  # fmt: skip
    parameters = FmParameters(np.array([[1, 0], [1, 0], [0, 1]], np.float32), np.zeros(fields.n_rows + 1, np.float32))
    items = slow.random_events(0, n_users=2, n_items=1, extras=False)[2]
    stats = np.zeros((4, 2), np.float32)
    train_pass(parameters, stats, events, items, options("squared", l2=0.5), NO_NEGATIVES, np.random.default_rng(0))
    shrunk = (1 - 0.05 * 2 * 0.5) ** 3
    np.testing.assert_allclose(parameters.factors, [[shrunk, 0], [1, 0], [0, shrunk]], rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 6), loss=st.sampled_from(LOSSES))
def test_gradient_sum_is_the_same_for_any_split_of_the_users(seed, cut, loss):
    _, events, items, parameters = slow.random_events(seed, n_users=6)
    order = np.random.default_rng(seed).permutation(6)
    whole = event_gradient_sum(parameters, events, items, options(loss), (7, 3))
    parts = [
        event_gradient_sum(parameters, take_users(events, users), items, options(loss), (7, 3))
        for users in (order[:cut], order[cut:])
    ]
    assert same(whole, merge(*parts))


def test_the_gradient_of_parameters_that_are_not_finite_is_refused():
    _, events, items, parameters = slow.random_events(1)
    parameters.linear[-1] = np.inf
    with pytest.raises(FloatingPointError):
        event_gradient_sum(parameters, events, items, options("squared"), (0, 0))


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 4))
def test_every_event_is_visited_once_and_every_moved_row_is_listed(shape, size):
    fields, events, items, parameters = slow.random_events(**shape)
    rng = np.random.default_rng(0)
    visits = visit_users(events, size, rng)
    visited = [e for a, b in zip(visits.first, visits.last, strict=True) for e in range(a, b)]
    assert sorted(visited) == list(range(len(events.item)))
    for first, last, owner in zip(*visits, strict=True):
        assert events.ptr[owner] <= first < last <= events.ptr[owner + 1]
    work = FmWorkspace(fields.n_rows)
    for loss in LOSSES:
        shape_of = (len(events.item), 2) if loss == "bpr" else (0, 0)
        negative = draw_negatives(items.cumulative, shape_of, items.offset, rng)
        rows = touched_rows(work, events, items.side, items.offset, negative.reshape(-1))
        assert np.all(np.diff(rows) > 0)
        moved = parameters.copy()
        train_pass(moved, work.stats, events, items, options(loss, l2=0.1, l2_bag=0.1), negative, rng)
        changed = np.flatnonzero(np.any(moved.factors != parameters.factors, axis=1))
        assert set(changed) <= set(rows)
        assert set(np.flatnonzero(work.stats[:-1].any(axis=1))) <= set(rows)
        work.clear()


def test_a_bag_has_length_one():
    bag = bag_of_items(np.array([0, 3, 3, 4]), np.array([0, 2, 1, 1], np.int32), 10)
    np.testing.assert_allclose(bag.value, [3**-0.5] * 3 + [1.0])
    assert bag.row.tolist() == [10, 12, 11, 11]


def test_ratings_are_clipped_and_labels_of_equal_value_are_learnt():
    fields, events, items, _ = slow.random_events(2, n_users=8)
    events = events._replace(label=np.full_like(events.label, 4.0))
    parameters = init_fm(fields, 3, 0.05, 4.0, 1)
    stats = np.zeros((fields.n_rows + 1, 2), np.float32)
    for epoch in range(20):
        train_pass(parameters, stats, events, items, options("squared"), NO_NEGATIVES, np.random.default_rng(epoch))
    np.testing.assert_allclose(predict_events(parameters, events, items, "squared", (1.0, 5.0)), 4.0, atol=0.05)
    assert predict_events(parameters, events, items, "squared", (1.0, 3.5)).max() == 3.5


def test_an_item_without_events_stays_as_it_was_drawn_and_has_a_prediction():
    fields, events, items, parameters = slow.random_events(4, n_items=7, extras=False)
    cold = items.offset + 6
    events = events._replace(item=np.minimum(events.item, cold - 1))
    before = parameters.copy()
    stats = np.zeros((fields.n_rows + 1, 2), np.float32)
    train_pass(parameters, stats, events, items, options("squared"), NO_NEGATIVES, np.random.default_rng(0))
    assert np.array_equal(parameters.factors[cold], before.factors[cold])
    asked = events._replace(item=np.full_like(events.item, cold))
    assert np.all(np.isfinite(predict_events(parameters, asked, items, "squared")))


def test_the_mean_of_snapshots_is_a_machine():
    _, _, _, parameters = slow.random_events(0)
    mean = SnapshotMean()
    with pytest.raises(ValueError, match="average_from"):
        mean.take()
    mean.add(parameters)
    mean.add(FmParameters(parameters.factors + 2, parameters.linear - 4))
    np.testing.assert_allclose(mean.take().factors, parameters.factors + 1, rtol=1e-5)
    np.testing.assert_allclose(mean.take().linear, parameters.linear - 2, rtol=1e-5)
