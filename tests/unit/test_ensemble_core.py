"""Ensembles without Spark: the score of the one machine is the mean of the members' scores, members keep their bits."""

from functools import partial

import numpy as np
import pytest
from scipy import sparse

from fm_spark.config import load_config
from fm_spark.core.combine import Accumulator, MoveSum, RowSum
from fm_spark.core.ensemble import factors_of_members, mean_factors, stacked, unstacked
from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import assemble, fm_predictions, fm_queries
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.gradient import Settings
from fm_spark.core.parameters import init_parameters
from fm_spark.core.queries import user_queries
from fm_spark.core.side import SideFeatures, compose
from fm_spark.training.blocks import PUBLISH, Block
from fm_spark.training.ensemble import EnsembleLearner, EnsembleLearnt, one_machine, restore_ensemble
from fm_spark.training.event_learner import EventLearnt
from fm_spark.training.ranker import RankerLearner, RankerLearnt, machine_of, restore_ranker
from tests.unit import slow

N_ITEMS, N_USERS, K, M = 9, 6, 3, 3
GENRES = sparse.csr_matrix((np.arange(2 * N_ITEMS).reshape(N_ITEMS, 2) % 3 == 0).astype(np.float32) * 0.7)
LIMITS = (1.0, 5.0)


def ranker(seed: int) -> RankerLearnt:
    """Composed rows of items with genres, all numbers random."""
    rng = np.random.default_rng(seed)
    parameters = init_parameters(2, np.arange(N_ITEMS), K, 0.7, seed)
    side = SideFeatures(GENRES, rng.random((2, K), np.float32), rng.random(2, np.float32))
    factors, bias = compose(side, parameters.item_factors, parameters.bias.astype(np.float64))
    parameters.item_factors[:], parameters.bias[:] = factors, bias
    return RankerLearnt(parameters, side)


def events_machine(seed: int, w0: float) -> EventLearnt:
    rng = np.random.default_rng(seed)
    rows = N_USERS + N_ITEMS + 2 + N_ITEMS
    linear = rng.normal(size=rows + 1).astype(np.float32)
    linear[-1] = w0
    return EventLearnt(FmParameters(rng.normal(size=(rows, K)).astype(np.float32), linear))


def block():
    made = slow.random_sequences(np.random.default_rng(5), N_USERS, N_ITEMS, 12)
    return made._replace(user=np.arange(N_USERS, dtype=np.int64))


def test_rankings_are_by_the_mean_score() -> None:
    members = [ranker(seed) for seed in range(M)]
    one, sequences = one_machine(members), block()
    assert one.parameters.factors.shape == (5 * N_ITEMS, M * K)

    def scores(learnt: RankerLearnt) -> np.ndarray:
        machine = machine_of(learnt.parameters, (0.5, 0.9))
        return user_queries(sequences, machine) @ machine.item_factors.T + machine.item_bias

    np.testing.assert_allclose(scores(one), np.mean([scores(m) for m in members], axis=0), atol=1e-5)
    # the composition of the items from the one machine's own rows and genres is exact as well
    own = mean_factors([m.parameters.item_factors - GENRES @ m.side.factors for m in members])
    offsets = [compose(m.side, m.parameters.item_factors - GENRES @ m.side.factors, np.zeros(N_ITEMS))[1]
               for m in members]  # fmt: skip
    np.testing.assert_allclose(compose(one.side, own, np.zeros(N_ITEMS))[1], np.mean(offsets, axis=0), atol=1e-5)


@pytest.mark.parametrize("loss", ["squared", "logistic", "bpr"])
def test_predictions_are_those_of_the_mean_score(loss: str) -> None:
    members = [events_machine(seed, 3.0 + seed / 4) for seed in range(M)]
    fields, sequences = Fields(N_USERS, N_ITEMS, 2, N_ITEMS), block()

    def said(learnt: EventLearnt, as_loss: str, limits: tuple[float, float] | None) -> np.ndarray:
        machine = assemble(as_loss, learnt.parameters, fields, GENRES, np.arange(N_USERS), limits)
        return fm_predictions(sequences, sequences, machine)

    score = "bpr" if loss == "bpr" else "squared"  # w0 and the query's own terms cancel in pairs
    mean = np.mean([said(member, score, None) for member in members], axis=0)
    one = one_machine(members)
    np.testing.assert_allclose(said(one, score, None), mean, atol=1e-5)
    if loss == "squared":
        clipped = said(one, loss, LIMITS)
        np.testing.assert_allclose(clipped, np.clip(mean, *LIMITS), atol=1e-5)
        assert (clipped == LIMITS[0]).any()
    if loss == "logistic":
        np.testing.assert_allclose(said(one, loss, None), 1 / (1 + np.exp(-mean)), atol=1e-5)
    machine = assemble(loss, one.parameters, fields, GENRES, np.arange(N_USERS))
    ranked = fm_queries(sequences, machine) @ machine.item_factors.T + machine.item_bias
    assert ranked.shape == (N_USERS, N_ITEMS)


def test_the_one_machine_can_be_taken_apart() -> None:
    members = [np.random.default_rng(seed).random((4, K), np.float32) for seed in range(M)]
    for found, wanted in zip(factors_of_members(mean_factors(members), M), members, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=3e-7)
    assert np.array_equal(factors_of_members(mean_factors(members[:1]), 1)[0], members[0])


def random_sum(seed: int, n_rows: int, n_biases: int) -> MoveSum:
    rng = np.random.default_rng(seed)

    def part(n: int, width: int) -> RowSum:
        rows = np.flatnonzero(rng.random(n) < 0.5).astype(np.int32)
        size = len(rows)
        numbers = [rng.integers(-9, 9, size) for _ in range(2)]
        return RowSum(rows, rng.integers(-9, 9, (size, width)), *numbers, np.ones(size, np.int32))

    return MoveSum(part(n_rows, K), part(n_biases, 1), 5, 7, 0.0)


def test_sums_of_members_go_through_an_accumulator_and_come_apart() -> None:
    sums = [random_sum(seed, 8, 4) for seed in range(M)]
    total = Accumulator((8 * M, K), 4 * M, np.int64)
    whole = stacked(sums, 8, 4)
    assert (whole.loss, whole.events) == (5, 7)
    for _ in range(2):
        total.add(whole)
    added = total.take()
    assert added is not None
    for part, one in zip(unstacked(added, M, 8, 4), sums, strict=True):
        for found, wanted in zip((part.factors, part.bias), (one.factors, one.bias), strict=True):
            assert np.array_equal(found.rows, wanted.rows)
            assert np.array_equal(found.move, 2 * wanted.move)
            assert np.array_equal(found.state, 2 * wanted.state)


def test_every_array_of_the_members_survives() -> None:
    learnt = EnsembleLearnt((ranker(0), ranker(1)))
    restore = partial(restore_ensemble, restore=partial(restore_ranker, x=GENRES))
    again = restore(learnt.arrays())
    assert isinstance(again, EnsembleLearnt)
    assert again.arrays().keys() == learnt.arrays().keys()
    assert all(np.array_equal(array, again.arrays()[name]) for name, array in learnt.arrays().items())
    # the best machine of early stopping is one machine
    assert isinstance(restore(one_machine(learnt.members).arrays()), RankerLearnt)
    assert len(learnt.without_rows().members[0].parameters.factors) == 0
    learnt.members[1].parameters.bias[0] = np.nan
    assert np.isnan(learnt.largest_norm())


def test_a_member_learns_the_bits_of_its_seed_alone() -> None:
    sequences = slow.random_sequences(np.random.default_rng(1), 30, N_ITEMS, 20)
    shared = Block(0, 0, sequences, np.zeros(len(sequences.item), np.uint8))
    count = np.bincount(sequences.item[sequences.liked > 0], minlength=N_ITEMS)
    settings = Settings((0.5, 0.9), 0.1, 0.05, 0.0, 16, 8, 0.3, 4)

    def learner(seed: int) -> RankerLearner:
        config = load_config(overrides=["train.k=3", f"train.seed={seed}"]).train
        return RankerLearner(config, (0.5, 0.9), PUBLISH, count, GENRES)

    def after_a_round(made, seed: int):
        learnt, task = made.start(), made.task(settings)
        value, _ = made.shared(learnt)
        made.apply(learnt, task.block(value, task.workspace(value), shared, (seed, 0, 0)), settings, 1)
        return learnt

    together = after_a_round(EnsembleLearner([learner(4), learner(5)]), 4)
    for member, seed in zip(together.members, (4, 5), strict=True):
        alone = after_a_round(learner(seed), seed).arrays()
        assert all(np.array_equal(alone[name], array) for name, array in member.arrays().items())
    assert not np.array_equal(together.members[0].parameters.factors, together.members[1].parameters.factors)
