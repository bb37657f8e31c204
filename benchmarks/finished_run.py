"""The tables of a finished training at the shape of MovieLens 25M, made up: what ``recommend`` and ``cluster`` read.

Histories are of lognormal length, items are as popular as the films of MovieLens 25M (:data:`_FALL`). The directions of
the factors are random; how long they are and how large the biases are follows from an item's number of events as in a
machine trained on the bundled ratings (:func:`item_side`), because ranking leaves out what cannot be good enough.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fm_spark.tables import contracts as C
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.evolution import CONTRACT_PROPERTY
from fm_spark.tables.notes import note_of
from fm_spark.tables.place import USER_METADATA
from fm_spark.tables.settings import settings
from fm_spark.tables.store import TableStore

RUN, MODEL = "bench", "fm-bench"
DECAYS = (0.3, 0.8, 0.98)
_EVENTS_A_FILE = 1_000_000
_GENRES = ("Action", "Adventure", "Comedy", "Crime", "Drama", "Horror", "Romance", "Thriller")


# events of the item at a share x of the catalogue, by popularity: exp(-_FALL * x ** _BEND); from 60,000 to 1
_FALL, _BEND = 11.3, 0.36
QUERY_LENGTH = 3.0
"""Of a user's query vector, about, as in that machine."""


class Shape(NamedTuple):
    """Numbers of users, items, events a user in the mean, and factors.

    Attributes:
        alike: all items have factors of one length and no bias, so that ranking can leave out none: the slowest case.
    """

    users: int = 162_541
    items: int = 62_423
    events: int = 154
    k: int = 64
    alike: bool = False


def write_finished_run(spark: SparkSession, root: Path, shape: Shape) -> None:
    """Writes events, items, fm_parameters and fm_model below ``root``; leaves tables that are there."""
    done = root / f"{'-'.join(map(str, shape))}.done"
    if done.exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    rng = np.random.default_rng(1)
    count = np.zeros(shape.items, np.int64)
    popularity = np.cumsum(_shares(rng, shape.items))
    for number, first in enumerate(range(0, shape.users, users := max(1, _EVENTS_A_FILE // shape.events))):
        table = _events(rng, popularity, range(first, min(first + users, shape.users)), shape, count)
        _file(root, C.EVENTS, number, table)
    _file(root, C.ITEMS, 0, _items(rng, count))
    _file(root, C.FM_PARAMETERS, 0, _parameters(rng, count, shape))
    for contract in (C.EVENTS, C.ITEMS, C.FM_PARAMETERS):
        table = f"delta.`{root / contract.name}`"
        spark.sql(f"CONVERT TO DELTA parquet.`{root / contract.name}`")
        # as the jobs that write these tables note their commits
        with settings(spark, {USER_METADATA: note_of(contract.name, RUN, WRITTEN_BY[contract.name])}):
            spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('{CONTRACT_PROPERTY}' = '{contract.name}')")
    store = TableStore(spark, str(root))
    store.write(_model(shape.k, {c.name: store.version(c) for c in (C.EVENTS, C.ITEMS)}), C.FM_MODEL, RUN)
    done.touch()


def _file(root: Path, contract: C.Contract, number: int, table: pa.Table) -> None:
    folder = root / contract.name
    folder.mkdir(parents=True, exist_ok=True)
    own = table.append_column("run_id", pa.repeat(RUN, len(table)))
    pq.write_table(own.select(contract.column_names), folder / f"part-{number:05d}.parquet")


def _events(
    rng: np.random.Generator, popularity: np.ndarray, users: range, shape: Shape, count: np.ndarray
) -> pa.Table:
    length = np.exp(rng.normal(np.log(shape.events) - 0.5, 1.0, len(users))).astype(np.int64) + 20
    user = np.repeat(np.array(users), length)
    item = np.searchsorted(popularity, rng.random(len(user))).clip(max=shape.items - 1)
    key = np.unique(user * shape.items + item)
    user, item = key // shape.items, key % shape.items
    order = np.lexsort((rng.random(len(key)), user))
    user, item = user[order], item[order]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    position = np.arange(len(user)) - np.repeat(starts, np.diff(starts, append=len(user)))
    count += np.bincount(item, minlength=shape.items)
    n = len(user)
    liked = rng.random(n) < 0.5
    time = pa.array(1_500_000_000_000_000 + position * 60_000_000, pa.timestamp("us", "UTC"))
    return pa.table({
        "user_id": user, "item_id": item, "time": time,
        "value": np.where(liked, 4.5, 3.0), "label": liked.astype(np.float64), "weight": np.ones(n),
        "split": pa.repeat("train", n), "position": position.astype(np.int32), "item_feature": item.astype(np.int32),
        "indices": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), item.astype(np.int32)),
        "values": pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), np.ones(n, np.float32)),
    })  # fmt: skip


def _items(rng: np.random.Generator, count: np.ndarray) -> pa.Table:
    n = len(count)
    genres = [sorted(rng.choice(_GENRES, 2, replace=False)) for _ in range(n)]
    return pa.table({
        "item_id": np.arange(n), "title": [f"A film of some length, number {i} (19{i % 100:02d})" for i in range(n)],
        "genres": genres, "year": pa.array(1900 + np.arange(n) % 100, pa.int32()),
        "tags": pa.array([[]] * n, pa.list_(pa.string())), "item_feature": np.arange(n, dtype=np.int32), "count": count,
        "attributes": pa.array([[]] * n, pa.map_(pa.string(), pa.list_(pa.string()))),
    })  # fmt: skip


def _parameters(rng: np.random.Generator, count: np.ndarray, shape: Shape) -> pa.Table:
    n, k = len(count), shape.k
    histories = [f"history_{kind}_{decay:g}" for decay in DECAYS for kind in ("liked", "not_liked")]
    fields = ["item", *histories]
    rows = n * len(fields)
    bias = np.zeros(rows)
    # a query is the sum of a bag of each decay, of length 1
    factors = rng.normal(0, QUERY_LENGTH / np.sqrt(k * len(DECAYS)), (rows, k)).astype(np.float32)
    factors[:n], bias[:n] = item_side(rng, count, k, shape.alike)
    return pa.table({
        "model_version": pa.repeat(MODEL, rows), "field": np.repeat(fields, n),
        "value": np.tile(np.arange(n).astype(str), len(fields)),
        "feature": np.arange(rows, dtype=np.int32), "bias": bias,
        "factors": pa.ListArray.from_arrays(np.arange(0, rows * k + 1, k, dtype=np.int32), factors.ravel()),
        "count": np.tile(count, len(fields)),
    })  # fmt: skip


def count_of_items(rng: np.random.Generator, n: int) -> np.ndarray:
    """int64 [n], numbers of events as in MovieLens 25M, in no order."""
    return np.maximum(1, 25_000_000 * _shares(rng, n)).astype(np.int64)


def _shares(rng: np.random.Generator, n: int) -> np.ndarray:
    share = np.exp(-_FALL * ((np.arange(n) + 0.5) / n) ** _BEND)
    return rng.permutation(share / share.sum())


def item_side(rng: np.random.Generator, count: np.ndarray, k: int, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Factors (float32 [n, k]) and biases (float64 [n]) of items with these numbers of events.

    Means over items of about equal count of a machine trained on the bundled ratings (``conf/local.toml``):

    events of an item      1     2     3     6    11    22    44    90   260
    length of its factors 0.3   0.5   0.6   0.8   1.0   1.2   1.3   1.4   1.5
    its bias             -1.6  -1.4  -1.1  -0.8  -0.3   0.4   1.3   2.2   3.2

    Args:
        alike: factors all 1.5 long, and no biases.
    """
    length = np.full(len(count), 1.5) if alike else np.minimum(0.33 + 0.31 * np.log(np.maximum(count, 1)), 1.5)
    factors = rng.normal(size=(len(count), k)).astype(np.float32)
    factors *= (length / np.linalg.norm(factors, axis=1))[:, None].astype(np.float32)
    return factors, np.zeros(len(count)) if alike else np.log1p(count) - 2.4


def _model(k: int, versions: dict[str, int]) -> pd.DataFrame:
    row = {
        "model_version": MODEL, "run_id": RUN, "created_at": datetime(2020, 1, 1, tzinfo=UTC), "purpose": "publish",
        "loss": "softmax", "k": k, "w0": 0.0, "epochs": 1, "decays": list(DECAYS), "hyperparameters": {}, "metrics": {},
        "input_versions": versions, "library_versions": {}, "config": "{}",
    }  # fmt: skip
    return pd.DataFrame([row])
