from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from test_list_exactness import N_ITEMS, N_USERS, of_events, of_histories, sequences

from fm_spark.core.explain import explain, history_terms
from fm_spark.core.queries import user_queries
from fm_spark.ranking.explained import Listed, explained


@pytest.mark.parametrize("kind", [of_histories, of_events])
def test_parts_add_up_and_the_pushes_are_those_of_single_features(kind: type) -> None:
    rng = np.random.default_rng(5)
    log = sequences(rng)
    made = kind(log, rng)
    own_bias = rng.normal(size=N_ITEMS)
    queries = user_queries(log, made.machine, log).astype(np.float64)
    item = np.arange(N_ITEMS, dtype=np.int32)
    for u in range(N_USERS):
        own = slice(log.ptr[u], log.ptr[u + 1])
        score = made.machine.item_factors @ queries[u] + made.machine.item_bias
        terms = history_terms(made.machine, log.item[own], log.liked[own])
        parts = explain(made.machine, own_bias, terms, item, score)
        total = parts.bias + parts.side + parts.push.sum(axis=1) + parts.rest
        np.testing.assert_allclose(total, score, atol=1e-9)
        # the features of the context are no events; those of one event are as many as there are decays
        n, features = log.ptr[u + 1] - log.ptr[u], made.query[u][2 if kind is of_histories else 3 :]
        push = np.zeros((n, N_ITEMS))
        for place, (vector, x) in enumerate(features):
            event = n - 1 - place % n if kind is of_histories else place
            push[event] += x * (made.machine.item_factors @ vector)
        for i in range(N_ITEMS):
            wanted = [e for e in np.argsort(-push[:, i]).tolist() if push[e, i] > 0][:3]
            assert parts.event[i].tolist() == wanted + [-1] * (3 - len(wanted))
            np.testing.assert_allclose(parts.push[i, : len(wanted)], push[wanted, i], atol=1e-4)


def test_a_user_without_events_has_no_pushes() -> None:
    rng = np.random.default_rng(5)
    machine = of_histories(sequences(rng), rng).machine
    none = np.empty(0, np.int32)
    terms = history_terms(machine, none, none.astype(np.uint8))
    parts = explain(machine, np.zeros(N_ITEMS), terms, np.array([3], np.int32), np.array([1.5]))
    assert (parts.event == -1).all()
    assert parts.side + parts.rest == pytest.approx(1.5)


def test_rows_name_the_items_and_say_because() -> None:
    rng = np.random.default_rng(5)
    log = sequences(rng)
    machine = of_histories(log, rng).machine
    queries = user_queries(log, machine, log).astype(np.float64)
    user, item = np.repeat(np.arange(N_USERS), 4), rng.integers(0, N_ITEMS, 4 * N_USERS).astype(np.int32)
    popular = user == 2
    score = np.where(popular, 9.0, (machine.item_factors[item] * queries[user]).sum(axis=1) + machine.item_bias[item])
    names = pa.array([str(i) for i in range(N_ITEMS)]), pa.array([f"Film {i}" for i in range(N_ITEMS)])
    parts, because = explained(machine, np.zeros(N_ITEMS), log, Listed(user, item, score, popular), names)
    for row, (own, text) in enumerate(zip(parts.to_pylist(), because.to_pylist(), strict=True)):
        assert sum(part["value"] for part in own) == pytest.approx(score[row], abs=1e-5)
        if popular[row]:
            assert (own, text) == ([{"kind": "popularity", "item_id": None, "value": 9.0}], None)
            continue
        assert [part["kind"] for part in own if part["item_id"] is None] == ["item_bias", "genres", "remainder"]
        events = slice(log.ptr[user[row]], log.ptr[user[row] + 1])
        liked = dict(zip(log.item[events].tolist(), log.liked[events].tolist(), strict=True))
        past = [(int(part["item_id"]), part["kind"]) for part in own if part["item_id"] is not None]
        assert all(kind == ("history_liked" if liked[i] else "history_not_liked") for i, kind in past)
        films = [f"Film {i}" for i, kind in past if kind == "history_liked"]
        said = {0: None, 1: "{}", 2: "{} and {}", 3: "{}, {} and {}"}[len(films)]
        assert text == (said and "Because you liked " + said.format(*films))
