"""The best users for groups of items against one user, one item at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from fm_spark.core import audience as A
from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import assemble, fm_predictions
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.item_scores import no_items, user_items
from fm_spark.core.queries import user_queries
from fm_spark.core.sequences import select
from tests.unit.test_context import FIELDS, random_block
from tests.unit.test_context import N_ITEMS as CATALOGUE

N_USERS, N_ITEMS, K = 700, 1500, 4
GROUPS = [np.array([3]), np.array([1400, 2, 1023, 1024]), np.arange(0, N_ITEMS, 3), np.array([7])]
LIMITS = (1.0, 5.0)


def inputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    normal = (rng.normal(size=shape).astype(np.float32) for shape in [(N_USERS, K), (N_ITEMS, K), N_ITEMS, N_USERS])
    queries, factors, bias, offset = normal
    return queries, factors, bias, offset.astype(np.float64)


def value(loss: str, raw: np.ndarray, offset: float) -> np.ndarray:
    """Values of all items for one user; raw: float64 [n_items]."""
    if loss == "logistic":
        return np.array([1 / (1 + math.exp(-(one + offset))) for one in raw])
    if loss == "squared":
        return np.array([min(max(one + offset, LIMITS[0]), LIMITS[1]) for one in raw])
    return raw - math.log(math.fsum(math.exp(one) for one in raw))


def mean(loss: str, values: list[float]) -> float:
    """Of probabilities p, whose logarithms a ranking machine has, ln of their mean."""
    if loss in ("logistic", "squared"):
        return math.fsum(values) / len(values)
    return math.log(math.fsum(math.exp(one) for one in values) / len(values))


@pytest.mark.parametrize("loss", ["softmax", "bpr", "logistic", "squared"])
@pytest.mark.parametrize("rule", ["mean", "max"])
def test_scores_equal_going_through_users_and_items(loss: str, rule: str) -> None:
    queries, factors, bias, offset = inputs()
    rng = np.random.default_rng(1)
    known = [rng.choice(N_ITEMS, 40, replace=False) for _ in range(N_USERS)]
    known[5], known[6] = np.arange(N_ITEMS), GROUPS[1]
    seen = user_items(np.cumsum([0, *map(len, known)]), np.concatenate(known).astype(np.int32))
    asked = A.targets(factors, bias, GROUPS, rule, loss)
    pointwise = loss in ("logistic", "squared")
    found = A.target_scores(asked, queries, seen, offset if pointwise else None, LIMITS)
    for u in [0, 5, 6, 255, 256, 699]:
        values = value(loss, factors.astype(float) @ queries[u].astype(float) + bias.astype(float), offset[u])
        for group, items in enumerate(GROUPS):
            own = [values[i] for i in items if i not in set(known[u])]
            wanted = (max(own) if rule == "max" else mean(loss, own)) if own else -math.inf
            assert found[u, group] == pytest.approx(wanted, abs=1e-7)
    assert not np.isfinite(found[5]).any()


def test_blocks_of_any_size_give_the_same_bits_and_the_same_users() -> None:
    queries, factors, bias, _ = inputs(2)
    queries[300:340] = queries[10]  # many users with equal scores
    asked = A.targets(factors, bias, GROUPS, "mean", "softmax")
    whole = A.target_scores(asked, queries, no_items(N_USERS))
    ids = np.array([f"u{u:03d}" for u in range(N_USERS)], object)
    for size in (7, 100, 699):
        best = A.BestUsers(len(GROUPS), 30)
        for first in range(0, N_USERS, size):
            block = queries[first : first + size]
            scores = A.target_scores(asked, block, no_items(len(block)))
            np.testing.assert_array_equal(scores, whole[first : first + size])
            best.add(ids[first : first + size], scores)
        for group, users, score in best.lists():
            order = sorted(range(N_USERS), key=lambda u, g=group: (-whole[u, g], u))[:30]
            assert users.tolist() == ids[order].tolist()
            np.testing.assert_array_equal(score, whole[order, group])


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_values_are_the_predictions_of_the_machine(loss: str) -> None:
    """With users, bag, side features and context, for a user whom training has seen and one whom it has not."""
    rng = np.random.default_rng(7)
    block = random_block(rng, 6)._replace(user=np.arange(6))
    side = sparse.random(CATALOGUE, 3, 0.5, format="csr", random_state=1).astype(np.float32)
    fields = Fields(5, CATALOGUE, 3, CATALOGUE, FIELDS.n_rows)
    parameters = FmParameters(
        rng.normal(0, 0.4, (fields.n_rows, 3)).astype(np.float32),
        rng.normal(0, 0.4, fields.n_rows + 1).astype(np.float32),
    )
    limits = (-0.5, 0.5) if loss == "squared" else None
    machine = assemble(loss, parameters, fields, side, np.arange(5), limits, FIELDS)
    queries = user_queries(block, machine, block)
    groups = [np.array([item]) for item in range(CATALOGUE)]
    asked = A.targets(machine.item_factors, machine.item_bias, groups, "mean", loss)
    offset = A.query_offsets(block, machine, queries)
    found = A.target_scores(asked, queries, no_items(block.n_users), offset, limits)
    first = np.zeros(len(block.item), np.bool_)
    first[block.ptr[:-1]] = True
    for item in range(CATALOGUE):
        one = select(block, first)
        said = fm_predictions(one._replace(item=np.full_like(one.item, item)), block, machine)
        np.testing.assert_allclose(found[:, item], said, atol=1e-5)
    assert len(np.unique(found.round(4))) > CATALOGUE


def test_large_scores_do_not_overflow() -> None:
    queries, factors, bias, offset = inputs(3)
    asked = A.targets(factors, bias, GROUPS, "max", "softmax")
    scores = A.target_scores(asked, queries * 1e4, no_items(N_USERS))
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()
    logistic = A.targets(factors, bias, GROUPS, "max", "logistic")
    chances = A.target_scores(logistic, queries * 1e4, no_items(N_USERS), offset)
    assert ((chances >= 0) & (chances <= 1)).all()


def test_nobody_is_left_without_items() -> None:
    queries, factors, bias, _ = inputs(4)
    asked = A.targets(factors, bias, [np.empty(0, np.int64)], "mean", "squared")
    assert np.isneginf(A.target_scores(asked, queries, no_items(N_USERS), np.zeros(N_USERS))).all()
