"""The tables of a finished training at the shape of MovieLens 25M, made up: what ``recommend`` and ``cluster`` read.

Factors are random, popularity is skewed, histories are of lognormal length; no time of any step depends on more.
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


class Shape(NamedTuple):
    """Numbers of users, items, events a user in the mean, and factors."""

    users: int = 162_541
    items: int = 62_423
    events: int = 154
    k: int = 64


def write_finished_run(spark: SparkSession, root: Path, shape: Shape) -> None:
    """Writes events, items, fm_parameters and fm_model below ``root``; leaves tables that are there."""
    done = root / f"{'-'.join(map(str, shape))}.done"
    if done.exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    rng = np.random.default_rng(1)
    count = np.zeros(shape.items, np.int64)
    for number, first in enumerate(range(0, shape.users, users := max(1, _EVENTS_A_FILE // shape.events))):
        table = _events(rng, first, min(first + users, shape.users), shape, count)
        _file(root, C.EVENTS, number, table)
    _file(root, C.ITEMS, 0, _items(rng, count))
    _file(root, C.FM_PARAMETERS, 0, _parameters(rng, count, shape.k))
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


def _events(rng: np.random.Generator, first: int, last: int, shape: Shape, count: np.ndarray) -> pa.Table:
    length = np.exp(rng.normal(np.log(shape.events) - 0.5, 1.0, last - first)).astype(np.int64) + 20
    user = np.repeat(np.arange(first, last), length)
    item = (shape.items * rng.random(len(user)) ** 4).astype(np.int64)
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


def _parameters(rng: np.random.Generator, count: np.ndarray, k: int) -> pa.Table:
    n = len(count)
    histories = [f"history_{kind}_{decay:g}" for decay in DECAYS for kind in ("liked", "not_liked")]
    fields = ["item", *histories]
    rows = n * len(fields)
    bias = np.zeros(rows)
    bias[:n] = np.log1p(count) / 2
    factors = rng.normal(0, 0.3, rows * k).astype(np.float32)
    return pa.table({
        "model_version": pa.repeat(MODEL, rows), "field": np.repeat(fields, n),
        "value": np.tile(np.arange(n).astype(str), len(fields)),
        "feature": np.arange(rows, dtype=np.int32), "bias": bias,
        "factors": pa.ListArray.from_arrays(np.arange(0, rows * k + 1, k, dtype=np.int32), factors),
        "count": np.tile(count, len(fields)),
    })  # fmt: skip


def _model(k: int, versions: dict[str, int]) -> pd.DataFrame:
    row = {
        "model_version": MODEL, "run_id": RUN, "created_at": datetime(2020, 1, 1, tzinfo=UTC), "purpose": "publish",
        "loss": "softmax", "k": k, "w0": 0.0, "epochs": 1, "decays": list(DECAYS), "hyperparameters": {}, "metrics": {},
        "input_versions": versions, "library_versions": {}, "config": "{}",
    }  # fmt: skip
    return pd.DataFrame([row])
