"""What a task that makes lists holds at its peak, beside the formula of docs/lists.md; no JVM.

    python -m benchmarks.list_memory [--users 4096] [--items 62423] [--k 64] [--n 100] [--seen 154]

The function that a Spark task runs is fed with made-up histories in a process of its own. The factors are random.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyspark.worker  # noqa: F401, what every worker has loaded

from benchmarks.finished_run import DECAYS
from fm_spark.core.context import NO_CONTEXT
from fm_spark.core.item_scores import prepare_items
from fm_spark.core.machine import Machine
from fm_spark.ranking.explained import STRUCT
from fm_spark.ranking.filters import Rule
from fm_spark.ranking.list_rules import ListRule
from fm_spark.ranking.top_n import PLAIN, _lists, _Shared
from fm_spark.tables.contracts import TOP_N
from fm_spark.tables.made import _Plan, _written


def worker_mib(items: int, k: int, n: int, lists: int = 1) -> float:
    """The formula of docs/lists.md, in MiB."""
    return 360 + (4 * k * items * (2 * len(DECAYS) + 1 + lists) + 100 * items + 2048 * n * 500) / 2**20


_TYPES = {"user_id": pa.int64(), "item_id": pa.int64(), "rank": pa.int32(), "score": pa.float64()}
_TYPES |= {"contributions": pa.list_(STRUCT), "diversity_cost": pa.float64()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in TOP_N.column_names])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 4096), ("items", 62_423), ("k", 64), ("n", 100), ("seen", 154)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--broadcast", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.broadcast:
        _task(a)
        return
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder) / "broadcast"
        sent.write_bytes(pickle.dumps(_shared(a), pickle.HIGHEST_PROTOCOL))
        command = [sys.executable, "-m", "benchmarks.list_memory", *sys.argv[1:], "--broadcast", str(sent)]
        subprocess.run(command, check=True)


def _task(a: argparse.Namespace) -> None:
    with a.broadcast.open("rb") as file:
        sent: Any = SimpleNamespace(value=pickle.load(file))
    make = partial(_lists, sent, iter)
    with tempfile.TemporaryDirectory() as folder:
        plan = _Plan(folder, TOP_N, "r1", make, {"run_id": "r1", "model_version": "fm-r1"}, _SCHEMA, False)
        (written,) = _written(plan, _histories(a))
    rows = written["rows"][0].as_py()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{a.users:,} users x {a.items:,} items, k = {a.k}, N = {a.n}: {rows:,} rows")
    print(f"peak {peak:.0f} MiB, by the formula {worker_mib(a.items, a.k, a.n):.0f} MiB")


def _histories(a: argparse.Namespace) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(1)
    for first in range(0, a.users, 64):
        user = np.repeat(np.arange(first, min(first + 64, a.users)), a.seen)
        item = rng.integers(0, a.items, len(user)).astype(np.int32)
        yield pa.RecordBatch.from_pydict({"user_id": user, "item_feature": item, "label": np.ones(len(user))})


def _shared(a: argparse.Namespace) -> _Shared:
    rng = np.random.default_rng(0)
    history = rng.normal(0, 0.3, (len(DECAYS), 2, a.items, a.k)).astype(np.float32)
    factors, bias = rng.normal(0, 0.3, (a.items, a.k)).astype(np.float32), rng.normal(0, 1, a.items).astype(np.float32)
    machine = Machine(np.array(DECAYS), history, factors, bias)
    everything = np.ones(a.items, np.bool_)
    return _Shared(
        machine,
        NO_CONTEXT,
        prepare_items(factors, bias),
        prepare_items(np.zeros((a.items, 1)), np.ones(a.items)),
        (ListRule("default", a.n, True, Rule(None, {}, a.items), everything),),
        np.append(np.arange(a.items), -1).astype(np.int32),
        pa.array(np.arange(a.items)),
        pa.array([f"A film of some length, number {i} (1999)" for i in range(a.items)]),
        *PLAIN,
    )


if __name__ == "__main__":
    main()
