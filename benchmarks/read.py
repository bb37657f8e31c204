"""Times one user's list through fm_spark.read: 162,541 users x 100 rows of ``top_n`` as fm_spark's store writes them.

    python -m benchmarks.read [--users 162541] [--n 100] [--items 62423] [--root FOLDER] [--lookups 200] [--changes]

Writes the table with Spark on two cores (unless ``--root`` has one), publishes it, and prints its files and the seconds
of the write. Then, without Spark: *cold* is the first list in a new process (median of five), apart by what it is made
of; *warm* is any further list from the same snapshot. ``--changes`` writes a second run in which every tenth user has
other lists, and times the comparison and the process's peak memory. The rows are synthetic: popular items are in many
lists, scores do not repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import fm_spark.read
from benchmarks.clock import seconds_of
from benchmarks.table_write import UNASKED, as_they_are
from fm_spark.config import load_config
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.contracts import PUBLICATIONS, TOP_N
from fm_spark.tables.made import Made
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore

_COLD = """
import json, sys, time
now = lambda: (time.perf_counter(), time.process_time())
times = [now()]
import fm_spark.read
times.append(now())
run = fm_spark.read.open(sys.argv[1])
times.append(now())
assert run.top_n(int(sys.argv[2])).num_rows == int(sys.argv[3])
times.append(now())
print(json.dumps(times))
"""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 162_541), ("n", 100), ("items", 62_423), ("lookups", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--root", default="")
    parser.add_argument("--changes", action="store_true")
    a = parser.parse_args()
    root = a.root or tempfile.mkdtemp(prefix="read-benchmark-")
    runs = ["r1", "r2"] if a.changes else ["r1"]
    if not (Path(root) / PUBLICATIONS.name).exists():
        _write(root, runs, a)
    _print_files(root)
    _print_cold(root, a)
    _print_warm(root, a)
    if a.changes:
        _print_changes(root)


def _write(root: str, runs: list[str], a: argparse.Namespace) -> None:
    os.environ.update(session_environment(os.environ))
    settings = {"spark.driver.memory": "4g"}
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args("local[2]", [], settings))
    spark = open_session("benchmark", load_config())
    store = TableStore(spark, root)
    for number, run_id in enumerate(runs, start=1):
        rows = _rows(spark, run_id, number, a)
        begin = time.perf_counter()
        version = store.write_made(Made(rows, as_they_are, rows.schema), TOP_N, run_id)
        print(f"{a.users * a.n:,} rows of {run_id} made, checked and written in {time.perf_counter() - begin:.1f} s")
        row = Publication(number, run_id, f"fm-{run_id}", datetime.now(UTC), {TOP_N.name: version}, {})
        store.write(pd.DataFrame([asdict(row)]), PUBLICATIONS, run_id)
    spark.stop()


def _rows(spark: SparkSession, run_id: str, number: int, a: argparse.Namespace) -> DataFrame:
    ranks = F.explode(F.sequence(F.lit(1), F.lit(a.n)))
    seed = F.when(F.col("user_id") % 10 == 0, F.lit(number)).otherwise(F.lit(0))
    drawn = F.pmod(F.xxhash64("user_id", "rank", seed), F.lit(2**30)) / F.lit(float(2**30))
    # popular ones are drawn more often, and none twice in a list
    item = F.floor(F.pow(F.col("drawn"), 3) * (a.items // a.n)) * a.n + F.col("rank") - 1
    return (
        spark.range(0, a.users, 1, 2)
        .select(F.col("id").alias("user_id"), ranks.alias("rank"))
        .select("user_id", "rank", drawn.alias("drawn"))
        .select(
            F.lit(run_id).alias("run_id"),
            F.lit(f"fm-{run_id}").alias("model_version"),
            F.lit("default").alias("list_name"),
            "user_id",
            "rank",
            item.cast("bigint").alias("item_id"),
            F.concat(F.lit("A title of usual length "), item, F.lit(" (1999)")).alias("title"),
            (F.lit(9.0) - F.sqrt("rank") - F.col("drawn")).alias("score"),
            F.lit("model").alias("source"),
            *(F.lit(None).cast(type_).alias(name) for name, type_ in UNASKED.items()),
        )
    )


def _print_files(root: str) -> None:
    print(f"{'file':<14}{'MB':>8}{'row groups':>12}{'rows a group':>14}")
    for file in sorted((Path(root) / TOP_N.name).glob("*.parquet")):
        found = pq.ParquetFile(file).metadata
        size, groups = file.stat().st_size / 1e6, found.num_row_groups
        print(f"{file.name[:10]:<14}{size:>8.1f}{groups:>12}{found.num_rows // groups:>14,}")


def _print_cold(root: str, a: argparse.Namespace) -> None:
    command = [sys.executable, "-c", _COLD, root]
    found = []
    for user in np.random.default_rng(1).integers(0, a.users, 5):
        done = subprocess.run([*command, str(user), str(a.n)], capture_output=True, text=True, check=True)
        found.append(np.diff(json.loads(done.stdout), axis=0))
    # [runs, parts, (wall clock, processor)]
    parts = 1e3 * np.array(found)
    print(f"{'':<36}{'ms':>8}{'processor ms':>14}")
    for name, chosen in (
        ("imports", [0]),
        ("open", [1]),
        ("first list", [2]),
        ("cold: open, first list", [1, 2]),
        ("cold: imports, open, first list", [0, 1, 2]),
    ):
        _print_line(name, np.median(parts[:, chosen].sum(axis=1), axis=0))


def _print_warm(root: str, a: argparse.Namespace) -> None:
    run = fm_spark.read.open(root)
    run.top_n(0)
    found = []
    for user in np.random.default_rng(2).integers(0, a.users, a.lookups):
        begin = time.perf_counter(), time.process_time()
        run.top_n(int(user))
        found.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    _print_line("warm: one list, median", 1e3 * np.median(found, axis=0))
    _print_line("warm: one list, 95th percentile", 1e3 * np.quantile(found, 0.95, axis=0))


def _print_line(name: str, milliseconds: np.ndarray) -> None:
    print(f"{name:<36}{milliseconds[0]:>8.1f}{milliseconds[1]:>14.1f}")


def _print_changes(root: str) -> None:
    run = fm_spark.read.open(root)
    found = 0

    def count() -> None:
        nonlocal found
        found = sum(batch.num_rows for batch in run.change_batches(since="r1"))

    seconds = seconds_of(count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found:,} changes between the two runs in {seconds:.1f} s; peak memory of the process {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
