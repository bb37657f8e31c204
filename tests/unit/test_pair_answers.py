"""What a task says about pairs, against the machine written out term by term."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import FmMachine, assemble
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.pair_answers import SOURCES, Answers, answers, prepare, with_classes

N_ITEMS, K = 6, 3
LEARNT = np.array([True, True, True, True, False, False])
# user 1 and 2 have a row and events, 3 has events alone, 9 has nothing
EVENTS = {1: [(0, 5.0), (3, 2.0)], 2: [(1, 4.0), (4, 1.0)], 3: [(2, 3.0)]}
PAIRS = {1: [3, 1, 4, 5, 99], 2: [0], 3: [0, 99], 9: [0, 4, 99]}


def catalogue() -> Catalogue:
    place = np.arange(N_ITEMS, dtype=np.int32)
    return Catalogue(
        place + 10,
        np.array(["t"] * N_ITEMS, object),
        [[]] * N_ITEMS,
        np.array([5, 4, 3, 2, 1, 0]),
        place,
        place,
        [None] * N_ITEMS,
        [{}] * N_ITEMS,
    )


def event_machine(loss: str) -> FmMachine:
    """Items 0 to 3 and, by its side feature alone, item 4; nothing is known of item 5."""
    rng = np.random.default_rng(1)
    fields = Fields(n_users=2, n_items=N_ITEMS, n_side=2, n_bag=N_ITEMS)
    factors = rng.standard_normal((fields.n_rows, K)).astype(np.float32)
    linear = rng.standard_normal(fields.n_rows + 1).astype(np.float32)
    for first in (fields.item_offset, fields.bag_offset):
        later = first + np.flatnonzero(~LEARNT)
        factors[later], linear[later] = 0.0, 0.0
    side = sparse.csr_matrix(np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0], [0, 1], [0, 0]], np.float32))
    limits = (-2.0, 2.0) if loss == "squared" else None
    return assemble(loss, FmParameters(factors, linear), fields, side, np.array([1, 2]), limits)


def written_out(machine: FmMachine, user: int, item: int | None) -> float:
    """y = w0 + w_u + w_i + side + all pairs among user, item and side + <bag, item + side>."""
    p, f = machine.parameters, machine.fields
    v, w = p.factors.astype(float), p.linear.astype(float)
    parts = [(user - 1, 1.0)] if user in (1, 2) else []
    of_item = []
    if item is not None:
        x = [[1, 0], [0, 1], [0.5, 0.5], [0, 0], [0, 1], [0, 0]][item]
        of_item = [(f.item_offset + item, 1.0), *((f.side_offset + j, x[j]) for j in range(2))]
    parts += of_item
    y = w[-1] + sum(w[row] * x for row, x in parts)
    y += sum(v[a] @ v[b] * s * t for i, (a, s) in enumerate(parts) for b, t in parts[i + 1 :])
    bag = [i for i, _ in EVENTS.get(user, []) if LEARNT[i]]
    b = sum((v[f.bag_offset + i] for i in bag), np.zeros(K)) / max(1, len(bag)) ** 0.5
    return float(y + b @ sum((x * v[row] for row, x in of_item), np.zeros(K)))


def asked(machine: Ranker, same: bool = True, classes: bool = False) -> Answers:
    rows = []
    for user, items in PAIRS.items():
        pair = {"user_id": user, "item_feature": None, "label": None, "value": None, "micros": None, "_same": same}
        rows += [{**pair, "_order": 0, "_item": 10 + item} for item in items]
        rows += [
            {"user_id": user, "_order": 1 + n, "item_feature": item, "label": 1.0, "value": value, "_item": None}
            for n, (item, value) in enumerate(EVENTS.get(user, []))
        ]
    kinds = {"user_id": pa.int64(), "_order": pa.int32(), "item_feature": pa.int32(), "label": pa.float64(),
             "value": pa.float64(), "micros": pa.int64(), "_item": pa.int64(), "_same": pa.bool_(),
             "user_attributes": pa.map_(pa.string(), pa.list_(pa.string()))}  # fmt: skip
    table = pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))
    shared = prepare(machine, catalogue(), LEARNT)
    if classes:
        shared = with_classes(shared, np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 4.0, 1)
    return answers(table, table["_order"].to_numpy() == 0, shared)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_predictions_are_the_machine_written_out(loss: str) -> None:
    machine = event_machine(loss)
    found = asked(machine)
    pairs = [(user, item if item < 5 else None) for user, items in PAIRS.items() for item in items]
    raw = [written_out(machine, user, item) for user, item in pairs]
    wanted = np.clip(raw, -2, 2) if loss == "squared" else [1 / (1 + math.exp(-y)) for y in raw]
    np.testing.assert_allclose(found.prediction, wanted, atol=2e-5)
    assert np.abs(raw).max() > 2  # some had to be cut
    # the score is what a list orders by: the same up to a constant of the user
    for user in PAIRS:
        own = [n for n, (u, _) in enumerate(pairs) if u == user]
        np.testing.assert_allclose(found.score[own] - found.score[own[0]], np.array(raw)[own] - raw[own[0]], atol=2e-5)
    assert [SOURCES[number] for number in found.source] == [
        "model", "model", "side_features", "unknown_item", "unknown_item",
        "model", "model", "unknown_item", "popular", "side_features", "unknown_item",
    ]  # fmt: skip


def test_users_with_other_events_than_the_training_are_served_from_them() -> None:
    names = [SOURCES[number] for number in asked(event_machine("squared"), same=False).source]
    assert (names[0], names[5], names[6], names[8]) == ("history", "history", "history", "popular")


def test_a_ranker_answers_strangers_by_popularity_and_ranks_all_candidates() -> None:
    rng = np.random.default_rng(2)
    factors = rng.standard_normal((N_ITEMS, K)).astype(np.float32)
    bias = rng.standard_normal(N_ITEMS).astype(np.float32)
    factors[5], bias[5] = 0, 0
    history = rng.standard_normal((1, 2, N_ITEMS, K)).astype(np.float32)
    found = asked(Machine(np.array([0.5]), history, factors, bias))
    assert found.prediction is None
    pairs = [(user, item) for user, items in PAIRS.items() for item in items]
    at = {pair: n for n, pair in enumerate(pairs)}
    values = np.array([1.0, 0.5]) / np.sqrt(1.25)
    query = values[0] * history[0, 1, 3] + values[1] * history[0, 1, 0]
    np.testing.assert_allclose(found.score[at[1, 1]], bias[1] + query @ factors[1], atol=1e-5)
    of_two = history[0, 1, 1]  # item 4 came after the training and is not in his history
    np.testing.assert_allclose(found.score[at[2, 0]], bias[0] + of_two @ factors[0], atol=1e-5)
    np.testing.assert_allclose(found.score[at[9, 0]] - found.score[at[9, 4]], np.log(6 / 2))
    assert found.score[at[1, 5]] == found.score[at[1, 99]] == pytest.approx(bias[3] + query @ factors[3], abs=1e-5)
    for user, items in PAIRS.items():
        own = sorted(items, key=lambda item: (-found.score[at[user, item]], item))
        assert [found.rank[at[user, item]] for item in own] == list(range(1, len(items) + 1))


def test_classes_of_strangers_and_unknown_items_are_the_usual_one() -> None:
    found = asked(event_machine("squared"), classes=True)
    assert found.label is not None
    assert found.voters is not None
    assert found.voters.tolist() == [1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    assert found.label[0] == 5.0  # the item itself has no vote: the other one of the user does
    assert found.label[6] == 3.0
    assert set(found.label[found.voters == 0]) == {4.0}
