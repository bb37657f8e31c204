"""Times the job's part that grows with the catalogue: neighbours of every item, written to a Delta table.

    python -m benchmarks.similar_items [--items 62423] [--k 64] [--n 50] [--cores 2]

Opens a local session, draws item vectors around 200 centres (as many kinds of items), and prints the seconds of the
whole, of the search alone (the same rows, counted) and of one process that searches without Spark. Every item can be a
neighbour (``similar.min_count = 0``), which is the most work. Beside the seconds of the clock stand those of the
processors, all processes together: divided by the cores they are what a machine without other work needs at least.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

# before numpy is loaded: one core is what a Spark task has
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from pyspark.sql import functions as F

from fm_spark.config import load_config
from fm_spark.core.neighbours import nearest_items
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.similar import around_items, similar_rows
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.contracts import SIMILAR_ITEMS
from fm_spark.tables.store import TableStore

_KINDS = 200
_SAMPLE = 4096


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("items", 62_423), ("k", 64), ("n", 50), ("cores", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    vectors, catalogue = _catalogue(a.items, a.k)
    config = load_config(overrides=[f"similar.n={a.n}", "similar.min_count=0"])
    around = around_items(vectors, catalogue, config.similar)
    nearest_items(around, np.arange(min(300, a.items)), a.n)  # compiles
    share = a.items / min(_SAMPLE, a.items)
    alone = _seconds(lambda: nearest_items(around, np.arange(min(_SAMPLE, a.items)), a.n)).times(share)
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args(f"local[{a.cores}]", [], {}))
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, tables=replace(config.tables, root=folder))
        spark = open_session("benchmark", config)
        store = TableStore(spark, folder)
        spark.range(1).write.format("delta").save(f"{folder}/warm")  # Delta's classes, and a first worker
        with similar_rows(spark, around, catalogue, config.similar) as rows:
            whole = rows.with_same(run_id="r", model_version="m")
            search = _seconds(lambda: rows.frame().agg(F.count("*"), F.sum("score")).collect())
            written = _seconds(lambda: store.write_made(whole, SIMILAR_ITEMS, "r"))
        count = store.read(SIMILAR_ITEMS).count()
        spark.stop()
    print(f"{a.items:,} items, K = {a.n}, k = {a.k}, {a.cores} cores: {count:,} rows")
    print(f"{'part':<46}{'seconds':>9}{'CPU s':>9}{'CPU s / cores':>15}")
    for part, spent, cores in (
        ("search and write to Delta", written, a.cores),
        ("search alone, on Spark", search, a.cores),
        ("search without Spark, one core, extrapolated", alone, 1),
    ):
        print(f"{part:<46}{spent.clock:>9.1f}{spent.cpu:>9.1f}{spent.cpu / cores:>15.1f}")


def _catalogue(n_items: int, k: int) -> tuple[np.ndarray, Catalogue]:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, _KINDS, n_items)
    vectors = rng.normal(0, 0.3, (_KINDS, k))[kind] + rng.normal(0, 0.3, (n_items, k))
    return vectors.astype(np.float32), Catalogue(
        item_id=np.arange(1, n_items + 1),
        title=np.array([f"The Long Title of Film {i} (1999)" for i in range(n_items)], object),
        genres=[[f"Genre {one % 20}", f"Genre {one % 7 + 20}"] for one in kind],
        count=rng.zipf(1.5, n_items).clip(max=80_000),
        feature=np.arange(n_items, dtype=np.int32),
        feature_to_item=np.arange(n_items, dtype=np.int32),
        year=[None] * n_items,
        attributes=[{}] * n_items,
    )


class Spent(NamedTuple):
    """Seconds of the clock, and of processors in this process and all that it started."""

    clock: float
    cpu: float

    def times(self, factor: float) -> Spent:
        """So many times as much."""
        return Spent(self.clock * factor, self.cpu * factor)


def _seconds(action: Callable[[], object]) -> Spent:
    begin, cpu = time.monotonic(), _cpu()
    action()
    return Spent(time.monotonic() - begin, _cpu() - cpu)


def _cpu() -> float:
    """Processor seconds so far of this process and its descendants, also of those that have ended (Linux)."""
    parent, spent = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # has just ended
        parent[int(entry.parent.name)], spent[int(entry.parent.name)] = int(values[1]), sum(map(int, values[11:15]))
    own = {os.getpid()}
    while more := {pid for pid, of in parent.items() if of in own} - own:
        own |= more
    return sum(spent[pid] for pid in own) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
