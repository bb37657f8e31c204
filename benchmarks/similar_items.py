"""Times the job's part that grows with the catalogue: neighbours of every item, written to a Delta table.

    python -m benchmarks.similar_items [--items 62423] [--k 64] [--n 50] [--cores 2]

Opens a local session, draws item vectors around 200 centres (as many kinds of items), and prints the seconds of the
whole, of the search alone (the same rows, counted) and of one process that searches without Spark. Every item can be a
neighbour (``similar.min_count = 0``), which is the most work.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

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
    alone = _seconds(lambda: nearest_items(around, np.arange(min(_SAMPLE, a.items)), a.n))
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args(f"local[{a.cores}]", [], {}))
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, tables=replace(config.tables, root=folder))
        spark = open_session("benchmark", config)
        store = TableStore(spark, folder)
        spark.range(1).write.format("delta").save(f"{folder}/warm")  # Delta's classes, and a first worker
        with similar_rows(spark, around, catalogue, config.similar) as rows:
            whole = rows.select("*", F.lit("r").alias("run_id"), F.lit("m").alias("model_version"))
            search = _seconds(lambda: rows.agg(F.count("*"), F.sum("score")).collect())
            written = _seconds(lambda: store.write(whole, SIMILAR_ITEMS, "r"))
        count = store.read(SIMILAR_ITEMS).count()
        spark.stop()
    print(f"{a.items:,} items, K = {a.n}, k = {a.k}, {a.cores} cores: {count:,} rows")
    print(f"{'part':<44}{'seconds':>10}")
    print(f"{'search and write to Delta':<44}{written:>10.1f}")
    print(f"{'search alone, on Spark':<44}{search:>10.1f}")
    print(f"{'search without Spark, one core, extrapolated':<44}{alone * a.items / min(_SAMPLE, a.items):>10.1f}")


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


def _seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
