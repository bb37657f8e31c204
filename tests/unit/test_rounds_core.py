"""Blocks and their sums without Spark: order, dealing of users, the combine rule's limits."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.core.combine import (
    BIAS_REACH,
    MOVE_GRID,
    STATE_GRID,
    Accumulator,
    MoveSum,
    RowSum,
    adaptive_sum,
    merge,
    on_grid,
)
from fm_spark.core.gradient import Sampler, Settings, Workspace, make_sampler, minibatches
from fm_spark.core.local_steps import Move, run_block
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.plan import Part, draw_targets, part_order, positives, visit_order
from fm_spark.core.sequences import TEST, TRAIN, UNUSED, Sequences, hold_out, take_users
from fm_spark.core.strategy import LocalSteps, Synchronous
from fm_spark.core.synchronous import gradient_sum
from tests.unit import slow

OPTIONS = Settings((0.5, 0.9), 0.1, 0.05, 0.0, 16, 8, 0.3, 4)
N_ITEMS, K = 12, 4


def make(seed=0, users=20):
    block = slow.random_sequences(np.random.default_rng(seed), users, N_ITEMS, 30)
    count = np.bincount(block.item[block.liked > 0], minlength=N_ITEMS)
    parameters = init_parameters(2, count, K, 0.1, seed)
    return block, parameters, make_sampler(count, 0.5), Workspace((5 * N_ITEMS, K), N_ITEMS)


def merge_all(sums):
    total = None
    for one in sums:
        total = merge(total, one)
    return total


def same(a: MoveSum, b: MoveSum) -> bool:
    arrays = zip((*a.factors, *a.bias), (*b.factors, *b.bias), strict=True)
    return all(np.array_equal(x, y) for x, y in arrays) and (a.loss, a.events) == (b.loss, b.events)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 20))
def test_gradient_sum_is_the_same_for_any_split_of_the_users(seed, cut):
    block, parameters, sampler, work = make(seed)
    order = np.random.default_rng(seed).permutation(block.n_users)
    whole = gradient_sum(parameters, work, block, sampler, OPTIONS, (7, 3))
    parts = [
        gradient_sum(parameters, work, take_users(block, users), sampler, OPTIONS, (7, 3))
        for users in (order[:cut], order[cut:])
    ]
    total = merge_all(parts)
    assert total is not None
    assert same(whole, total)


@pytest.mark.parametrize("strategy", [LocalSteps(0.5), Synchronous()])
def test_a_block_leaves_the_parameters_alone_and_repeats_itself(strategy):
    block, parameters, sampler, work = make(1)
    before = [array.copy() for array in parameters]
    first = strategy.block(parameters, work, block, sampler, OPTIONS, (1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert same(first, strategy.block(parameters, work, block, sampler, OPTIONS, (1, 2, 3)))
    other = strategy.block(parameters, work, block, sampler, OPTIONS, (2, 2, 3))
    assert not same(first, other)
    assert len(first.factors.rows) > 0
    assert np.all(np.diff(first.factors.rows) > 0)


@pytest.mark.parametrize("strategy", [LocalSteps(0.5), Synchronous()])
def test_training_lowers_the_loss(strategy):
    block, parameters, sampler, work = make(2, users=60)
    losses = []
    for epoch in range(30):
        total = strategy.block(parameters, work, block, sampler, OPTIONS, (1, epoch, 0))
        strategy.apply(parameters, total, OPTIONS, 1)
        losses.append(total.loss / total.events)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


def test_merging_does_not_depend_on_the_order():
    block, parameters, sampler, work = make(3)
    strategy = LocalSteps(0.5)
    sums = [
        strategy.block(parameters, work, take_users(block, np.arange(i, 20, 5)), sampler, OPTIONS, (1, 0, i))
        for i in range(5)
    ]
    forwards, backwards = merge_all(sums), merge_all(sums[::-1])
    assert same(forwards, backwards)
    dense = Accumulator((5 * N_ITEMS, K), N_ITEMS)
    for again in (sums, sums[2:] + sums[:2]):  # the second time it starts empty again
        for one in again:
            dense.add(one)
        assert same(forwards, dense.take())
    assert dense.take() is None
    assert merge(None, None) is None


@pytest.mark.parametrize("largest", [5, 2**15 - 1, 2**15, 2**30])
def test_a_sum_travels_unchanged(largest):
    rng = np.random.default_rng(0)
    move = rng.integers(-3, 4, size=(9, 4)).astype(np.int32)
    move[3, 1], move[7, 0] = largest, -largest
    rows = np.arange(0, 18, 2, dtype=np.int32)
    part = RowSum(rows, move, rng.integers(0, 99, 9), rng.integers(0, 99, 9), np.ones(9, np.int32))
    again = pickle.loads(pickle.dumps(part))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(part, again, strict=True))
    if largest < 2**15:
        assert sum(a.nbytes for a in part.encoded()) < sum(a.nbytes for a in part)


def test_a_block_that_stops_half_way_leaves_no_trace():
    """After ``clear`` the workspace computes the same bits as a fresh one, and the parameters are as they were."""
    block, parameters, sampler, work = make(5)
    rare = N_ITEMS - 1  # only the last event that the block visits has it, and it is never drawn as a negative
    found = positives(block)
    order = visit_order(found, OPTIONS.chunk_size, np.random.default_rng(0))
    item = block.item % rare
    item[found.position[order.last[-1] - 1]] = rare
    block, sampler = block._replace(item=item), sampler._replace(cumulative=np.append(sampler.cumulative[:-2], [1, 1]))
    options = OPTIONS._replace(target_decay=0.0)
    poisoned = parameters._replace(bias=np.where(np.arange(N_ITEMS) == rare, np.float32(np.nan), parameters.bias))
    before = [array.copy() for array in poisoned]
    with pytest.raises(FloatingPointError, match="loss"):
        run_block(poisoned, work, block, sampler, options, np.random.default_rng(0))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, poisoned, strict=True))
    assert work.factors.place.any()  # it did stop in the middle of a minibatch
    work.clear()
    for strategy in (LocalSteps(0.5), Synchronous()):
        fresh = strategy.block(parameters, make(5)[3], block, sampler, OPTIONS, (1, 2, 3))
        assert same(strategy.block(parameters, work, block, sampler, OPTIONS, (1, 2, 3)), fresh)


def positives_of(chunks, found):
    runs = zip(chunks.first, chunks.last, strict=True)
    return [int(p) for begin, end in runs for p in found.position[begin:end]]


def test_the_parts_of_an_epoch_hold_every_positive_once():
    block = slow.random_sequences(np.random.default_rng(4), 15, N_ITEMS, 60)._replace(user=np.arange(-7, 8))
    found = positives(block)
    for key in (1, 2**64 - 1):
        parts = [part_order(found, block.user, Part(r, 4, key), np.random.default_rng(r)) for r in range(4)]
        visited = [positives_of(part, found) for part in parts]
        assert sorted(p for one in visited for p in one) == found.position.tolist()
        assert min(map(len, visited)) > 0
        starts = np.repeat(found.start, np.diff(found.ptr))
        for part in parts:
            assert np.array_equal(part.start, starts[part.first])
    other = [part_order(found, block.user, Part(0, 4, key), np.random.default_rng(0)) for key in (1, 2)]
    assert positives_of(other[0], found) != positives_of(other[1], found)


def test_what_a_user_gives_to_a_part_does_not_depend_on_his_block():
    whole = slow.random_sequences(np.random.default_rng(5), 15, N_ITEMS, 60)
    few = take_users(whole, np.array([3, 9]))

    def items(block, user, part):
        found = positives(block)
        at = int(np.flatnonzero(block.user == user)[0])
        mine = set(range(block.ptr[at], block.ptr[at + 1]))
        order = part_order(found, block.user, Part(part, 3, 7), np.random.default_rng(0))
        return sorted(p - int(block.ptr[at]) for p in positives_of(order, found) if p in mine)

    for user in few.user:
        assert [items(few, user, part) for part in range(3)] == [items(whole, user, part) for part in range(3)]
        assert any(items(few, user, part) for part in range(3))


def test_a_block_without_events_of_the_part_moves_nothing():
    block, parameters, sampler, work = make(2, users=1)
    learnt = [
        run_block(parameters, work, block, sampler, OPTIONS._replace(part=part), np.random.default_rng(0))
        for part in (Part(r, 1000, 0) for r in range(5))
    ]
    assert any(len(one.rows) == 0 and one.events == 0 for one in learnt)


@pytest.mark.parametrize("largest", [7, 2**15, 2**31 - 1, 2**40])
def test_a_sum_of_wide_integers_travels_in_few_bytes(largest):
    rng = np.random.default_rng(0)
    move = rng.integers(-3, 4, size=(9, 4))
    move[3, 1] = -largest
    nothing = np.zeros(9, np.int64)
    part = RowSum(np.arange(9, dtype=np.int32), move, rng.integers(0, 99, 9), nothing, np.ones(9, np.int32))
    again = pickle.loads(pickle.dumps(part))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(part, again, strict=True))
    assert sum(a.nbytes for a in part.encoded()) < sum(a.nbytes for a in part) / 1.5


def test_an_empty_block_learns_nothing():
    _, parameters, sampler, work = make(4)
    nobody = slow.random_sequences(np.random.default_rng(0), 0, N_ITEMS, 1)
    no_likes = slow.random_sequences(np.random.default_rng(0), 3, N_ITEMS, 5)
    no_likes = no_likes._replace(liked=np.zeros_like(no_likes.liked))
    for block in (nobody, no_likes):
        move = run_block(parameters, work, block, sampler, OPTIONS, np.random.default_rng(0))
        assert len(move.rows) == len(move.items) == 0
        assert move.events == 0


def point(state):
    """One row of one factor and one bias, at zero."""
    return Parameters(np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.array([state]), np.array([0.1]))


def sum_of(moves, states, initial):
    at = point(initial)
    rows, none = np.zeros(1, np.int32), np.empty(0, np.int32)
    sums = []
    for move, added in zip(moves, states, strict=True):
        factors = np.array([[move]], np.float32)
        one = Move(rows, factors, np.array([added]), none, np.empty(0, np.float32), np.empty(0), 0.0, 1.0)
        sums.append(on_grid(one, at))
    return merge_all(sums)


def test_small_steps_add_up():
    """Blocks that barely change the accumulator moved as one sequential pass would: the plain sum."""
    parameters = point(100.0)
    adaptive_sum(parameters, sum_of([0.01] * 8, [1e-4] * 8, 100.0), 8, 0.0)
    np.testing.assert_allclose(parameters.factors, 0.08, rtol=1e-3)


def test_saturated_rows_average_towards_the_root():
    """From an empty accumulator P equal blocks move sqrt(P) times as far as one, never less than the average."""
    parameters = point(1e-12)
    adaptive_sum(parameters, sum_of([0.5] * 16, [10.0] * 16, 1e-12), 16, 0.0)
    np.testing.assert_allclose(parameters.factors, 0.5 * 4, rtol=1e-3)
    np.testing.assert_allclose(parameters.factors_state, 160.0, rtol=1e-6)


def test_one_block_is_sequential():
    parameters = point(0.1)
    adaptive_sum(parameters, sum_of([3.0], [7.0], 0.1), 1, 0.5)
    np.testing.assert_allclose(parameters.factors, 3.0, rtol=1e-5)


def test_gamma_does_not_explode_where_nothing_was_learnt():
    parameters = point(1e6)
    adaptive_sum(parameters, sum_of([1e-3] * 4, [0.0] * 4, 1e6), 4, 0.0)
    np.testing.assert_allclose(parameters.factors, 4e-3, rtol=1e-2)


def test_trust_region_bounds_the_combined_move():
    parameters = Parameters(
        np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), np.zeros(2, np.float32), np.full(2, 0.1), np.full(2, 0.1)
    )
    rows = np.array([0, 1], np.int32)
    move = np.array([[100, 0], [0, 100]], np.int64) * int(MOVE_GRID)
    state = np.array([1, 1], np.int64) * int(STATE_GRID)
    none = RowSum(rows[:0], move[:0, :1], state[:0], state[:0], rows[:0])
    adaptive_sum(
        parameters, MoveSum(RowSum(rows, move, state, state, np.array([2, 2], np.int32)), none, 0, 1, 0.0), 2, 0.5
    )
    rms = np.sqrt(25.0 / 2)
    np.testing.assert_allclose(parameters.factors[0], [3.0 + 2.5, 4.0], rtol=1e-5)
    np.testing.assert_allclose(parameters.factors[1], [0.0, 0.5 * rms], rtol=1e-5)


@pytest.mark.parametrize(("n_blocks", "expected"), [(2, BIAS_REACH), (1, 3.0)])
def test_a_bias_moves_by_a_bounded_step_when_blocks_are_combined(n_blocks, expected):
    parameters = Parameters(np.ones((2, 1), np.float32), np.zeros(2, np.float32), np.full(2, 0.1), np.full(2, 0.1))
    row = np.array([1], np.int32)
    state = np.array([1], np.int64) * int(STATE_GRID)
    move = np.array([[3]], np.int64) * int(MOVE_GRID)
    one = RowSum(row, move, state, state, np.array([1], np.int32))
    none = RowSum(row[:0], move[:0], state[:0], state[:0], row[:0])
    adaptive_sum(parameters, MoveSum(none, one, 0, 1, 0.0), n_blocks, 0.5)
    np.testing.assert_allclose(parameters.bias, [0.0, expected], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_move_that_is_not_finite_is_refused(bad):
    with pytest.raises(FloatingPointError, match="moved by"):
        sum_of([bad], [1.0], 0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 9))
def test_every_positive_is_visited_once(seed, size):
    rng = np.random.default_rng(seed)
    found = positives(slow.random_sequences(rng, 8, N_ITEMS, 20))
    order = visit_order(found, size, rng)
    visited = np.concatenate([np.arange(a, b) for a, b in zip(order.first, order.last, strict=True)] or [[]])
    assert sorted(visited) == list(range(len(found.position)))
    assert np.all(order.last - order.first <= size)
    assert np.all(order.last > order.first)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), n_items=st.integers(1, 40), negatives=st.integers(1, 30))
def test_negatives_are_the_items_in_whose_share_the_random_numbers_fall(seed, n_items, negatives):
    rng = np.random.default_rng(seed)
    share = rng.random(n_items) * (rng.random(n_items) < 0.6) + 1e-9  # some are hardly ever drawn
    cumulative = np.cumsum(share / share.sum()) * (1 - 1e-3 * (seed % 2))  # rounding may leave it short of 1
    sampler = Sampler(cumulative, np.zeros(n_items, np.float32))
    block = slow.random_sequences(rng, 3, n_items, 20)
    found = positives(block)
    order = visit_order(found, 4, rng)
    again = np.random.default_rng(seed)
    options = OPTIONS._replace(negatives=negatives)
    target = block.item[found.position]
    for batch in minibatches(found, order, target, sampler, options, np.random.default_rng(seed)):
        drawn = np.searchsorted(cumulative, again.random(negatives), side="right")
        assert list(batch.negative) == sorted(np.minimum(drawn, n_items - 1))
        assert np.array_equal(batch.target, block.item[batch.position])


def test_targets_are_the_users_own_next_liked_items():
    rng = np.random.default_rng(0)
    block = slow.random_sequences(rng, 30, N_ITEMS, 20)
    found = positives(block)
    assert np.array_equal(draw_targets(block, found, 0.0, rng), block.item[found.position])
    target = draw_targets(block, found, 0.7, rng)
    for u in range(block.n_users):
        liked = block.item[found.position[found.ptr[u] : found.ptr[u + 1]]]
        for place, chosen in enumerate(target[found.ptr[u] : found.ptr[u + 1]]):
            assert chosen in liked[place:]
    assert np.mean(target != block.item[found.position]) > 0.2


def test_hold_out_is_the_last_fifth_of_the_positives():
    liked = np.array([1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1], np.uint8)
    block = Sequences(
        np.array([1, 2]), np.array([0, 9, 11]), np.arange(11, dtype=np.int32), liked,
        np.ones(11, np.float32), np.zeros(11, np.uint8),
    )  # fmt: skip
    part = hold_out(block, 0.2, 5)
    assert list(part) == [TRAIN] * 7 + [TEST, UNUSED] + [TRAIN, TRAIN]
