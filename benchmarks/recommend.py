"""Times ``recommend`` as a whole at the shape of MovieLens 25M, beside Spark ALS.

    python -m benchmarks.recommend [--root FOLDER] [--users 162541] [--items 62423] [--k 64] [--n 100] [--seen 154]
                                   [--als-users 6000] [--only-ours] [--cold] [--alike]

Two cores. The tables that ``recommend`` reads are made once below ``--root`` (benchmarks/finished_run.py) and are used
again; with ``--alike`` they are those of the slowest case. Then the job runs as in a pipeline, in a session that has
done such work before (``--cold``: in a new one): read the model, read every history, rank all items for every user
without those seen, write ``top_n`` to Delta.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.finished_run import RUN, Shape, write_finished_run
from benchmarks.list_memory import worker_mib
from fm_spark.config import load_config
from fm_spark.events.histories import Read
from fm_spark.named_lists import named_lists
from fm_spark.ranking.blocks import list_tasks, user_blocks
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.list_rules import list_rules
from fm_spark.ranking.served import served
from fm_spark.ranking.top_n import top_n_rows
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore
from jobs import recommend


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/tmp/fm_spark-bench-recommend"))
    for name, value in (
        ("users", 162_541),
        ("items", 62_423),
        ("k", 64),
        ("n", 100),
        ("seen", 154),
        ("als-users", 6000),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cold", action="store_true", help="time the first job of a new session")
    parser.add_argument(
        "--alike", action="store_true", help="items that no bound tells apart: factors of one length and no biases"
    )
    parser.add_argument("--only-ours", action="store_true", help="leave out Spark ALS")
    a = parser.parse_args()
    shape = Shape(a.users, a.items, a.seen, a.k, a.alike)
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(local_submit_args("local[2]", [], {"spark.driver.memory": "4g"}))
    spark = open_session("benchmark recommend", load_config())
    write_finished_run(spark, a.root, shape)
    if not a.cold:
        _warm(spark, a.root.with_name(f"{a.root.name}-small"))
    ours = _ours(spark, a)
    _parts(spark, a)
    if not a.only_ours:
        _als(spark, a, ours)
    spark.stop()


def _warm(spark: SparkSession, root: Path) -> None:
    """The job on a small root: Java has then loaded and compiled what it needs, as after a pipeline's earlier jobs."""
    write_finished_run(spark, root, Shape(3_000, 2_000, 50, 64))
    shutil.rmtree(root / "top_n", ignore_errors=True)
    recommend.run(spark, load_config(overrides=[f"tables.root='{root}'", f"run.id='{RUN}'"]))


def _ours(spark: SparkSession, a: argparse.Namespace) -> float:
    config = load_config(overrides=[f"tables.root='{a.root}'", f"run.id='{RUN}'", f"recommend.n={a.n}"])
    # every night is a new run; to replace the lists of the same run is another thing (twice the rows, for the feed)
    shutil.rmtree(a.root / "top_n", ignore_errors=True)
    begin = time.perf_counter()
    result = recommend.run(spark, config)
    whole = time.perf_counter() - begin
    files = DeltaTable(str(a.root / "top_n")).get_add_actions(flatten=True)
    sizes = [size / 2**20 for size in pa.table(files)["size_bytes"].to_pylist()]
    print(f"{result.users:,} users x {a.items:,} items, k = {a.k}, N = {a.n}: {sum(result.rows.values()):,} rows")
    print(f"recommend, written to Delta: {whole:.1f} s", flush=True)
    print(f"{len(sizes)} files of {min(sizes):.0f} to {max(sizes):.0f} MiB")
    held, formula = worker_peak(), worker_mib(a.items, a.k, a.n)
    print(f"a Python worker held {held:,.0f} MiB at its peak; by the formula {formula:,.0f} MiB")
    return whole


def _parts(spark: SparkSession, a: argparse.Namespace) -> None:
    """Seconds of the steps, one after the other."""
    config = load_config(overrides=[f"tables.root='{a.root}'", f"run.id='{RUN}'", f"recommend.n={a.n}"])
    store, begin = TableStore(spark, str(a.root)), time.perf_counter()
    inputs = load_inputs(store, config, PUBLISH)
    loaded = time.perf_counter()
    users = served(store, inputs)
    tasks = list_tasks(spark, a.users, a.n, a.items)
    source, read = users.histories.parts(tasks)
    drain = partial(_drained, inputs.catalogue.feature_to_item, read)
    source.mapInArrow(drain, "n long").write.format("noop").mode("overwrite").save()
    packed = time.perf_counter()
    rules = list_rules(named_lists(config.recommend), inputs.catalogue, [])
    with top_n_rows(users, inputs.machine, inputs.catalogue, rules) as rows:
        rows.frame().write.format("noop").mode("overwrite").save()
    ranked = time.perf_counter()
    print(f"model read: {loaded - begin:.1f} s; histories read and packed in {tasks} tasks: {packed - loaded:.1f} s")
    print(f"the latter with scoring, selection and the way of the rows to Spark: {ranked - packed:.1f} s", flush=True)


def _drained(feature_to_item: np.ndarray, read: Read, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    n = sum(block.n_users for block in user_blocks(read(batches), feature_to_item))
    yield pa.RecordBatch.from_pydict({"n": [n]})


def worker_peak() -> float:
    """MiB that the largest Python worker on this machine has held; Spark keeps idle ones for a while."""
    held = [0]
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if b"pyspark.daemon" in (status.parent / "cmdline").read_bytes():
                fields = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
                held.append(int(fields["VmHWM"].split()[0]))
    return max(held) / 1024


def _als(spark: SparkSession, a: argparse.Namespace, ours: float) -> None:
    """Spark ALS on a part of the users; the time of one user is that of the difference of two subsets."""
    users = F.col("id").cast("int").alias("user")
    ratings = spark.range(max(a.users, a.items)).select(
        (users % a.users).alias("user"), (F.col("id") % a.items).cast("int").alias("item"), F.lit(1.0).alias("rating")
    )
    model = ALS(rank=a.k, maxIter=0, userCol="user", itemCol="item", ratingCol="rating", seed=1).fit(ratings)
    seconds: dict[int, float] = {}
    for n in (a.als_users // 4, a.als_users // 4, a.als_users):  # the first one compiles
        begin = time.perf_counter()
        subset = spark.range(n).select(F.col("id").cast("int").alias("user"))
        model.recommendForUserSubset(subset, a.n).write.format("noop").mode("overwrite").save()
        seconds[n] = time.perf_counter() - begin
        print(f"ALS, {n:,} users: {seconds[n]:.1f} s", flush=True)
    few, many = seconds
    all_users = seconds[few] + (seconds[many] - seconds[few]) / (many - few) * (a.users - few)
    print(f"Spark ALS recommendForUserSubset: {seconds[many]:.1f} s for {many:,} users, {all_users:.0f} s for all")
    print(f"that is {all_users / ours:.1f} times as long, without leaving out what is seen and without writing")


if __name__ == "__main__":
    main()
