"""Slow and obviously right: the machine over events, term by term in float64, and random sparse events."""

from __future__ import annotations

import numpy as np

from fm_spark.core.constant_steps import ItemTable
from fm_spark.core.fm_events import NO_USER, Events, Features, Fields
from fm_spark.core.fm_parameters import FmParameters

Pairs = list[tuple[int, float]]


def features_of(features: Features, i: int) -> Pairs:
    """(row, value) of thing i."""
    at = slice(features.ptr[i], features.ptr[i + 1])
    return list(zip(features.row[at].tolist(), features.value[at].astype(float).tolist(), strict=True))


def owner_of(events: Events, e: int) -> int:
    return int(np.searchsorted(events.ptr, e, side="right")) - 1


def event_value(parameters: FmParameters, events: Events, items: ItemTable, e: int, item: int | None = None) -> float:
    """y of event e; with ``item`` (a row) as if it were about that item."""
    v, w = parameters.factors.astype(np.float64), parameters.linear.astype(np.float64)
    row = int(events.item[e]) if item is None else item
    user = [] if events.user[e] == NO_USER else [(int(events.user[e]), 1.0)]
    others = [(row, 1.0), *features_of(items.side, row - items.offset), *features_of(events.context, e)]
    bag = features_of(events.bag, owner_of(events, e))
    x = [*user, *others]
    y = w[-1] + sum(w[j] * value for j, value in x)
    for a in range(len(x)):
        for b in range(a + 1, len(x)):
            y += (v[x[a][0]] @ v[x[b][0]]) * x[a][1] * x[b][1]
    for m, value in bag:
        for j, other in others:
            y += (v[m] @ v[j]) * value * other
    return float(y)


def loss_of(loss: str, y: float, label: float) -> float:
    if loss == "squared":
        return 0.5 * (y - label) ** 2
    return float(np.logaddexp(0.0, y) - label * y)


def total_loss(parameters, events, items, loss, negative=None) -> float:
    """Weighted sum of the losses of all events."""
    total = 0.0
    for e in range(len(events.item)):
        weight = float(events.weight[e])
        y = event_value(parameters, events, items, e)
        if loss != "bpr":
            total += weight * loss_of(loss, y, float(events.label[e]))
            continue
        for j in negative[e]:
            if j != events.item[e]:
                total += weight * np.logaddexp(0.0, event_value(parameters, events, items, e, int(j)) - y)
    return total


def random_features(rng: np.random.Generator, n: int, first: int, rows: int, most: int) -> Features:
    """0 to ``most`` distinct features each."""
    each = [rng.choice(rows, rng.integers(0, min(most, rows) + 1), replace=False) for _ in range(n)]
    row = np.concatenate([*each, np.empty(0)]).astype(np.int32) + np.int32(first)
    ptr = np.concatenate([[0], np.cumsum([len(x) for x in each])]).astype(np.int64)
    return Features(ptr, row, rng.normal(0, 1, len(row)).astype(np.float32))


def random_events(seed, n_users=5, n_items=6, n_side=5, longest=5, k=3, users=True, extras=True, std=0.4):
    """Random fields, events of users with 0 to ``longest`` events, items with side features, and parameters."""
    rng = np.random.default_rng(seed)
    n_side, n_bag = (n_side, n_items) if extras else (0, 0)
    fields = Fields(n_users, n_items, n_side, n_bag)
    length = rng.integers(0, longest + 1, n_users)
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    n, most = int(ptr[-1]), 2 if extras else 0
    user = np.repeat(np.arange(n_users), length).astype(np.int32) if users else np.full(n, NO_USER, np.int32)
    if users and extras and n:
        user[rng.integers(0, n)] = NO_USER
    item = rng.integers(0, n_items, n).astype(np.int32) + np.int32(n_users)
    half = n_side // 2
    side = random_features(rng, n_items, fields.side_offset, half, most)
    events = Events(
        rng.permutation(10 * n_users)[:n_users].astype(np.int64),
        ptr,
        user,
        item,
        rng.integers(0, 2, n).astype(np.float32),
        rng.uniform(0.5, 2.0, n).astype(np.float32),
        random_features(rng, n, fields.side_offset + half, n_side - half, most),
        random_features(rng, n_users, fields.bag_offset, n_bag, most * 2),
    )
    parameters = FmParameters(
        rng.normal(0, std, (fields.n_rows, k)).astype(np.float32),
        rng.normal(0, std, fields.n_rows + 1).astype(np.float32),
    )
    return fields, events, ItemTable(n_users, side, np.linspace(0, 1, n_items + 1)[1:]), parameters
