"""The rows of lists as a task makes them, without a JVM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_filters import numbered

from fm_spark.core.context import NO_CONTEXT
from fm_spark.core.item_scores import prepare_items
from fm_spark.core.machine import Machine
from fm_spark.errors import TableError
from fm_spark.named_lists import NamedList
from fm_spark.ranking.list_rules import list_rules
from fm_spark.ranking.top_n import Extras, _lists, _Shared

N_ITEMS = 40
COUNT = np.arange(N_ITEMS, dtype=np.int64) % 7


def shared(lists: list[NamedList], extras: Extras) -> _Shared:
    rng = np.random.default_rng(4)
    history = rng.normal(size=(1, 2, N_ITEMS, 3)).astype(np.float32)
    factors = rng.normal(size=(N_ITEMS, 3)).astype(np.float32)
    machine = Machine(np.array([0.9]), history, factors, np.zeros(N_ITEMS, np.float32))
    places = np.append(np.arange(N_ITEMS), -1).astype(np.int32)
    return _Shared(
        machine,
        NO_CONTEXT,
        prepare_items(machine.item_factors, machine.item_bias),
        prepare_items(np.zeros((N_ITEMS, 1)), COUNT, COUNT > 0),
        list_rules(lists, numbered(COUNT), [[]] * N_ITEMS),
        places,
        pa.array(np.arange(N_ITEMS)),
        pa.array([f"Film {i}" for i in range(N_ITEMS)]),
        *extras,
    )


def rows(users: dict[Any, list[int]], made: _Shared, new: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Events of users, in this order, on items; of no item where a user has none."""
    events = [(user, item) for user, items in users.items() for item in items or [N_ITEMS]]
    batch = pa.RecordBatch.from_pydict({
        "user_id": [user for user, _ in events],
        "item_feature": pa.array([item for _, item in events], pa.int32()),
        "label": [float(item % 2) for _, item in events],
        "split": ["unused" if user in new else "train" for user, _ in events],
    })  # fmt: skip
    sent: Any = SimpleNamespace(value=made)
    batches = [batch.slice(start, 3) for start in range(0, len(batch), 3)]
    return [row for out in _lists(sent, iter, batches) for row in out.to_pylist()]


def named(name: str, n: int) -> NamedList:
    return NamedList(name, "", None, n, True, 0)


def test_rows_are_in_the_order_of_the_table_and_say_where_they_come_from() -> None:
    users = {"a": [3, 5], "b": [], "c": [8, N_ITEMS, 9], "d": [N_ITEMS], "e": list(range(N_ITEMS))}
    made = rows(users, shared([named("all", 4), named("few", 2)], Extras()), new=("b", "c", "d"))
    key = [(row["user_id"], row["list_name"], row["rank"]) for row in made]
    assert key == sorted(key)
    assert key == [(u, name, r) for u in "abcd" for name, n in (("all", 4), ("few", 2)) for r in range(1, n + 1)]
    source = {row["user_id"]: row["source"] for row in made}
    assert source == {"a": "model", "b": "popular", "c": "history", "d": "popular"}
    most = [6, 13, 20, 27]
    assert [row["item_id"] for row in made if row["user_id"] == "d" and row["list_name"] == "all"] == most
    assert {row["score"] for row in made if row["user_id"] == "b"} == {6.0}
    assert all(row["title"] == f"Film {row['item_id']}" for row in made)
    assert all(row["contributions"] is row["because"] is row["diversity_cost"] is None for row in made)


def test_a_user_who_is_served_from_his_history_has_the_list_of_one_in_training() -> None:
    made = rows({1: [3, 5, 7], 2: [3, 5, 7]}, shared([named("all", 10)], Extras()), new=(2,))
    of_user = [[(r["item_id"], r["score"]) for r in made if r["user_id"] == user] for user in (1, 2)]
    assert of_user[0] == of_user[1]


def test_explanations_and_diversity_hold_for_every_source() -> None:
    extras = Extras(np.zeros(N_ITEMS), 0.4)
    made = rows({1: [3, 5, 7], 2: []}, shared([named("all", 6)], extras))
    for row in made:
        assert sum(part["value"] for part in row["contributions"]) == pytest.approx(row["score"], abs=1e-5)
    assert [row["because"] is None for row in made if row["user_id"] == 2] == [True] * 6
    assert any(row["because"] for row in made if row["user_id"] == 1)
    assert max(row["diversity_cost"] for row in made if row["user_id"] == 1) > 0.0


def test_users_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(TableError, match="do not ascend"):
        rows({2: [1], 1: [2]}, shared([named("all", 3)], Extras()))
