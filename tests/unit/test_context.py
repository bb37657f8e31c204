"""Context fields of the query: kernels against the definition, any split of users, what an event may know."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core.combine import MOVE_GRID, STATE_GRID, MoveSum, RowSum, adaptive_sum, merge
from fm_spark.core.context import Context, ContextFields, event_features
from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import assemble, fm_predictions
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.gradient import Minibatch, Settings, Workspace, add_gradient, make_sampler
from fm_spark.core.machine import Machine
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.plan import positives
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import concatenate, one_user, select, take_users
from fm_spark.core.strategy import LocalSteps, Synchronous
from fm_spark.core.synchronous import gradient_sum
from fm_spark.core.time_fields import DAY, HOUR, TIME_FIELDS, time_rows
from fm_spark.events.sequences import TIME, pack
from fm_spark.events.user_columns import ATTRIBUTES, user_features
from tests.unit import slow, slow_events

N_ITEMS, K = 6, 3
DECAYS = (0.5, 0.9)
SIZES = (4, 3, 5)
FIELDS = ContextFields(
    ("hour_of_week", "days_since_first"), ("color",), tuple(tuple(f"v{j}" for j in range(1, n)) for n in SIZES)
)


def random_block(rng, n_users=3, longest=8, weight=None):
    """Random users whose events have two fields of time and whose users have 0 to 3 features with any values."""
    block = slow.random_sequences(rng, n_users, N_ITEMS, longest)
    n = len(block.item)
    time = np.stack([rng.integers(0, SIZES[0], n), SIZES[0] + rng.integers(0, SIZES[1], n)], axis=1).astype(np.int32)
    users = slow_events.random_features(rng, block.n_users, sum(SIZES[:2]), SIZES[2], 3)
    return block._replace(context=Context(time, users))


def context_pairs(block, event):
    """(context row, value) of an event, from the definition."""
    owner = int(np.searchsorted(block.ptr, event, side="right")) - 1
    of_time = [(int(row), 1.0) for row in block.context.time[event]]
    return of_time + slow_events.features_of(block.context.user, owner)


def context_query(block, event, table):
    return sum((x * table[row].astype(np.float64) for row, x in context_pairs(block, event)), np.zeros(table.shape[1]))


def random_parameters(rng):
    rows = (2 * len(DECAYS) + 1) * N_ITEMS + sum(SIZES)
    return Parameters(
        rng.normal(size=(rows, K)).astype(np.float32) * 0.5, rng.normal(size=N_ITEMS).astype(np.float32),
        np.full(rows, 0.1), np.full(N_ITEMS, 0.1),
    )  # fmt: skip


def dense_gradient(parameters, block, batch, correction):
    work = Workspace(parameters.factors.shape, N_ITEMS)
    options = Settings(DECAYS, 0.1, 0.0, 0.0, 8, 4, 0.0)
    loss, _, n, _ = add_gradient(parameters, work, block, batch, options, correction)
    dense = np.zeros(parameters.factors.shape)
    dense[work.factors.rows[:n]] = work.factors.grad[:n]
    return loss, dense


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_softmax_gradient_of_context_rows_is_finite_differences(seed):
    rng = np.random.default_rng(seed)
    block, parameters = random_block(rng), random_parameters(rng)
    found = positives(block)
    used = np.flatnonzero(np.diff(found.ptr) > 0)
    ptr = np.concatenate([[0], np.cumsum(np.diff(found.ptr)[used])]).astype(np.int64)
    negative = rng.integers(0, N_ITEMS, 4).astype(np.int32)
    batch = Minibatch(ptr, found.start[used], found.position, block.item[found.position], negative)
    correction = make_sampler(np.arange(N_ITEMS), 0.5).correction
    begin = np.repeat(batch.chunk_start, np.diff(ptr))
    first = 2 * len(DECAYS) * N_ITEMS

    def loss(factors):
        total = 0.0
        for j, p in enumerate(batch.position):
            history = slice(begin[j], p)
            q = slow.query(block.item[history], block.liked[history], DECAYS, factors, N_ITEMS)
            q = q + context_query(block, p, factors[first : first + sum(SIZES)])
            score = parameters.bias.astype(np.float64) + factors[-N_ITEMS:] @ q
            others = [score[i] - correction[i] for i in negative if i != batch.target[j]]
            own = score[batch.target[j]]
            total += float(block.weight[p]) * (np.log(np.exp([own, *others]).sum()) - own)
        return total

    value, dense = dense_gradient(parameters, block, batch, correction)
    exact, step = parameters.factors.astype(np.float64), 1e-5
    np.testing.assert_allclose(value, loss(exact), rtol=1e-4, atol=1e-6)
    for index in np.ndindex(exact.shape):
        up, down = exact.copy(), exact.copy()
        up[index] += step
        down[index] -= step
        np.testing.assert_allclose(dense[index], (loss(up) - loss(down)) / (2 * step), atol=5e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 8))
def test_gradient_sum_is_the_same_for_any_split_of_the_users(seed, cut):
    rng = np.random.default_rng(seed)
    block, parameters = random_block(rng, 8), random_parameters(rng)
    sampler = make_sampler(np.arange(N_ITEMS), 0.5)
    options, work = Settings(DECAYS, 0.1, 0.0, 0.0, 8, 4, 0.3, 4), Workspace(parameters.factors.shape, N_ITEMS)
    order = rng.permutation(8)
    parts = [take_users(block, users) for users in (order[:cut], order[cut:])]
    whole, *sums = (gradient_sum(parameters, work, b, sampler, options, (7, 3)) for b in (block, *parts))
    total = merge(*sums)
    for one, other in zip((*whole.factors, *whole.bias), (*total.factors, *total.bias), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.loss == total.loss


@pytest.mark.parametrize("strategy", [LocalSteps(0.5, SIZES), Synchronous()])
def test_training_moves_context_rows_and_leaves_the_broadcast_alone(strategy):
    rng = np.random.default_rng(3)
    block, parameters = random_block(rng, 40, 20), random_parameters(rng)
    options, work = Settings(DECAYS, 0.1, 0.01, 0.0, 16, 4, 0.0, 4), Workspace(parameters.factors.shape, N_ITEMS)
    before = parameters.factors.copy()
    sampler, losses = make_sampler(np.arange(N_ITEMS), 0.5), []
    for epoch in range(25):
        total = strategy.block(parameters, work, block, sampler, options, (1, epoch, 0))
        if epoch == 0:
            np.testing.assert_array_equal(parameters.factors, before)
        strategy.apply(parameters, total, options, 1)
        losses.append(total.loss / total.events)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05
    assert np.all(np.any(parameters.context(2) != before[-N_ITEMS - sum(SIZES) : -N_ITEMS], axis=1))


def test_every_context_field_has_a_trust_region_of_its_own():
    """Rows without a norm move by half the root mean square of their own field, not of their neighbours."""
    n_items, sizes = 2, (2, 1)
    factors = np.zeros((2 * n_items + 3 + n_items, 2), np.float32)
    factors[:4], factors[5], factors[6], factors[7:] = 100.0, [0.0, 6.0], [8.0, 0.0], 1000.0
    state = np.full(len(factors), 0.1)
    parameters = Parameters(factors, np.zeros(n_items, np.float32), state, np.full(n_items, 0.1))
    rows = np.array([4, 6], np.int32)
    move = np.array([[100, 0], [0, 100]], np.int64) * int(MOVE_GRID)
    one = np.array([1, 1], np.int64) * int(STATE_GRID)
    none = RowSum(rows[:0], move[:0, :1], one[:0], one[:0], rows[:0])
    total = MoveSum(RowSum(rows, move, one, one, np.array([2, 2], np.int32)), none, 0, 1, 0.0)
    adaptive_sum(parameters, total, 2, 0.5, sizes)
    np.testing.assert_allclose(factors[4], [0.5 * 6.0 / np.sqrt(2), 0.0], rtol=1e-5)
    np.testing.assert_allclose(factors[6], [8.0, 4.0], rtol=1e-5)


def test_context_changes_no_other_start_and_unseen_rows_start_at_zero():
    count, context = np.array([3, 0, 5]), np.array([4, 0, 1, 0])
    plain = init_parameters(2, count, 4, 0.1, 7)
    more = init_parameters(2, count, 4, 0.1, 7, context)
    np.testing.assert_array_equal(more.history(2), plain.history(2))
    np.testing.assert_array_equal(more.item_factors, plain.item_factors)
    np.testing.assert_array_equal(np.any(more.context(2) != 0, axis=1), context > 0)
    assert len(plain.context(2)) == 0


def test_selections_keep_every_event_with_its_context():
    block = random_block(np.random.default_rng(1), 6)
    events = [context_pairs(block, e) for e in range(len(block.item))]
    keep = np.random.default_rng(2).random(len(block.item)) < 0.5
    users = np.array([4, 0, 5])
    own = [slice(block.ptr[u], block.ptr[u + 1]) for u in users]
    expected = {
        "select": (select(block, keep), [events[e] for e in np.flatnonzero(keep)]),
        "take": (take_users(block, users), [pairs for s in own for pairs in events[s]]),
        "one": (one_user(block, 4), events[own[0]]),
        "join": (concatenate([one_user(block, u) for u in users]), [pairs for s in own for pairs in events[s]]),
    }
    for name, (part, pairs) in expected.items():
        assert [context_pairs(part, e) for e in range(len(part.item))] == pairs, name
        owner = np.repeat(np.arange(part.n_users), np.diff(part.ptr))
        features = event_features(part.context, np.arange(len(part.item)), owner, 10)
        found = [slow_events.features_of(features, e) for e in range(len(part.item))]
        assert found == [[(row + 10, x) for row, x in one] for one in pairs], name


def test_queries_are_the_sum_of_history_and_context_of_the_first_event_asked():
    rng = np.random.default_rng(5)
    block, parameters = random_block(rng, 6), random_parameters(rng)
    items = (parameters.item_factors, parameters.bias)
    plain = Machine(np.array(DECAYS), parameters.history(2), *items)
    machine = plain._replace(context=FIELDS, context_factors=parameters.context(2))
    asked = select(block, rng.random(len(block.item)) < 0.6)
    found = user_queries(block, machine, asked) - user_queries(block, plain)
    for u in range(block.n_users):
        if asked.ptr[u + 1] > asked.ptr[u]:
            expected = context_query(asked, asked.ptr[u], machine.context_factors)
            np.testing.assert_allclose(found[u], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="context"):
        user_queries(block, machine)


@pytest.mark.parametrize("loss", ["squared", "bpr"])
def test_the_event_machine_predicts_with_context_by_the_definition(loss):
    """Ranking by query and item vector agrees with predictions within a user and context."""
    rng = np.random.default_rng(9)
    block = random_block(rng, 5)
    fields = Fields(5, N_ITEMS, 0, N_ITEMS, sum(SIZES))
    parameters = FmParameters(
        rng.normal(0, 0.4, (fields.n_rows, K)).astype(np.float32),
        rng.normal(0, 0.4, fields.n_rows + 1).astype(np.float32),
    )
    block = block._replace(user=np.arange(5))
    machine = assemble(loss, parameters, fields, None, np.arange(5), context=FIELDS)
    known = select(block, np.arange(len(block.item)) % 2 == 0)
    asked = select(block, np.arange(len(block.item)) % 2 == 1)
    predicted = fm_predictions(asked, known, machine)
    queries = user_queries(known, machine, asked)
    for u in range(5):
        first = asked.ptr[u]
        if first == asked.ptr[u + 1]:
            continue
        v, w = parameters.factors.astype(np.float64), parameters.linear.astype(np.float64)
        context = [(fields.context_offset + row, x) for row, x in context_pairs(asked, first)]
        own = [(u, 1.0), (fields.item_offset + int(asked.item[first]), 1.0), *context]
        bag = known.item[known.ptr[u] : known.ptr[u + 1]] + fields.bag_offset
        y = w[-1] + sum(w[row] * x for row, x in own)
        pairs = [(a, b) for i, a in enumerate(own) for b in own[i + 1 :]]
        y += sum(v[r] @ v[s] * x * z for (r, x), (s, z) in pairs)
        y += sum(v[m] @ v[s] * z / np.sqrt(len(bag)) for m in bag for s, z in own[1:])
        if loss == "squared":
            np.testing.assert_allclose(predicted[first], y, rtol=1e-4)
        else:
            score = machine.item_bias[asked.item[first]] + queries[u] @ machine.item_factors[asked.item[first]]
            np.testing.assert_allclose(predicted[first], score, rtol=1e-4, atol=1e-5)


def micros(text):
    return int(np.datetime64(text, "us").astype(np.int64))


@pytest.mark.parametrize(
    ("field", "time", "value"),
    [
        ("hour_of_week", "1970-01-01T00:59", "Thursday 00"),
        ("hour_of_week", "2024-02-26T13:00", "Monday 13"),
        ("hour_of_week", "2024-03-03T23:59:59", "Sunday 23"),
        ("hour_of_week", "1969-12-31T23:00", "Wednesday 23"),
        ("days_since_first", "2020-01-01T12:00", "0"),
        ("days_since_first", "2020-01-02T11:59", "0"),
        ("days_since_first", "2020-01-02T12:00", "1"),
        ("days_since_first", "2020-01-05T11:00", "2-3"),
        ("days_since_first", "2020-01-05T12:00", "4-7"),
        ("days_since_first", "2021-01-05T12:00", "256-511"),
        ("days_since_first", "2090-01-05T12:00", "16384+"),
        ("calendar", "2020-02-29T23:59", "2020-02"),
        ("calendar", "1969-12-31T23:59", "1969-12"),
    ],
)
def test_values_of_time(field, time, value):
    first = np.array([micros("2020-01-01T12:00")])
    code = TIME_FIELDS[field].code(np.array([micros(time)]), first)[0]
    assert TIME_FIELDS[field].name(int(code)) == value
    if TIME_FIELDS[field].values is not None:
        assert TIME_FIELDS[field].values[code] == value


def log_table(rng, n_users=5, longest=12):
    """Rows of users in the order of their histories, with times and a map of attributes in their first rows."""
    length = rng.integers(1, longest, n_users)
    user = np.repeat(np.arange(n_users), length)
    n = len(user)
    time = np.concatenate([np.sort(rng.integers(0, 400 * DAY, m)) for m in length])
    first = np.concatenate([np.arange(m) == 0 for m in length])
    maps = [[("color", ["v1", "v2"][: u % 3])] if f else None for u, f in zip(user, first, strict=True)]
    return pa.table(
        {
            "user_id": user,
            "item_feature": rng.integers(0, N_ITEMS, n),
            "label": rng.integers(0, 2, n).astype(float),
            "weight": np.ones(n),
            "split": ["train"] * n,
            TIME: time,
            ATTRIBUTES: pa.array(maps, pa.map_(pa.string(), pa.list_(pa.string()))),
        }
    )


ALL_TIME = ContextFields(
    tuple(TIME_FIELDS),
    ("color",),
    (*(f.values or ("1970-01", "1970-03") for f in TIME_FIELDS.values()), ("v1", "v2")),
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.95))
def test_features_do_not_change_when_later_events_are_cut_off(seed, share):
    table = log_table(np.random.default_rng(seed))
    index, cut = np.arange(N_ITEMS, dtype=np.int32), np.quantile(table[TIME].to_numpy(), share)
    whole = pack(table, index, ALL_TIME)
    early = pack(table.filter(pa.compute.less_equal(table[TIME], cut)), index, ALL_TIME)
    kept = select(whole, table[TIME].to_numpy() <= cut)
    np.testing.assert_array_equal(kept.context.time, early.context.time)
    for place, user in enumerate(early.user):
        at = int(np.flatnonzero(whole.user == user)[0])
        pairs = (slow_events.features_of(block.context.user, u) for block, u in ((early, place), (whole, at)))
        assert next(pairs) == next(pairs)


def test_the_first_event_is_that_of_the_whole_history():
    """A selected part keeps the days that were counted from the first event, which is not in it."""
    fields = ContextFields(("days_since_first",), (), (TIME_FIELDS["days_since_first"].values,))
    table = pa.table(
        {
            "user_id": [1, 1, 1], "item_feature": [0, 1, 2], "label": [1.0] * 3, "weight": [1.0] * 3,
            "split": ["train"] * 3, TIME: [0, 5 * DAY, 40 * DAY],
        }
    )  # fmt: skip
    block = pack(table, np.arange(3, dtype=np.int32), fields)
    bins = TIME_FIELDS["days_since_first"].values
    assert [bins[row - 1] for row in block.context.time[:, 0]] == ["0", "4-7", "32-63"]
    later = select(block, np.array([False, True, True]))
    assert [bins[row - 1] for row in later.context.time[:, 0]] == ["4-7", "32-63"]
    as_of = pack(table, np.arange(3, dtype=np.int32), fields._replace(as_of=100 * DAY + HOUR))
    assert {bins[row - 1] for row in as_of.context.time[:, 0]} == {"64-127"}


def test_a_month_that_is_not_listed_has_the_first_row():
    fields = ContextFields(("hour_of_week", "calendar"), (), (TIME_FIELDS["hour_of_week"].values, ("1970-01",)))
    rows = time_rows(fields, np.array([0, 40 * DAY]), np.zeros(2, np.int64))
    assert rows[:, 1].tolist() == [169 + 1, 169]


def test_attributes_of_users():
    """Several values share one unit of length; no row, no value and unknown values are the field's first row."""
    fields = ContextFields((), ("color", "size"), (("blue", "red"), ("L",)))
    maps = [
        [("color", ["red", "blue"]), ("size", ["L"])],
        None,
        [("color", ["green", "pink", "red"]), ("size", ["__unseen__"])],
        [("color", []), ("size", ["L"])],
    ]
    column = pa.chunked_array([pa.array(maps, pa.map_(pa.string(), pa.list_(pa.string())))])
    found = user_features(column, fields, 4)
    half = np.float32(np.sqrt(0.5))
    expected = [
        [(1, half), (2, half), (4, 1.0)],
        [(0, 1.0), (3, 1.0)],
        [(0, half), (2, half), (3, 1.0)],
        [(0, 1.0), (4, 1.0)],
    ]
    assert [slow_events.features_of(found, u) for u in range(4)] == expected
