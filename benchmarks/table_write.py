"""Times the write of ``top_n`` at the shape of MovieLens 25M through Spark, with every check, and shows its files.

    python -m benchmarks.table_write [--users 162541] [--n 100] [--items 62423]

Four ways in one run, each into a new table: what Spark and Delta take for rows in order without any check; the store,
for rows that tasks write themselves (``write_made``, as ``recommend`` does on a local root; here with what Spark takes
to hand them its rows); for rows that their maker delivers in order (``in_order``); for rows in any order, which it
checks, sorts and lays out. The rows are made up (titles as long as those of MovieLens, items by a power law) and made
anew by each way; what making them costs is timed apart.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from benchmarks.clock import seconds_of
from fm_spark.config import load_config
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.contracts import TOP_N
from fm_spark.tables.made import Made
from fm_spark.tables.store import TableStore

_RUN = "20261123T172144Z-3f9a"
UNASKED = {column.name: column.type for column in TOP_N.columns if column.nullable}
"""Columns that lists have only where they are asked for, and their types."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 162_541), ("n", 100), ("items", 62_423), ("files", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args("local[2]", [], {}))
    spark = open_session("table_write", load_config())
    root = tempfile.mkdtemp(prefix="fm_spark-write-")
    try:
        _warm(spark, root)
        rows = _rows(spark, a.users, a.n, a.items, a.files)
        print(f"{a.users * a.n:,} rows, {a.users:,} users, local[2]")
        print(f"{'way':<28}{'seconds':>9}{'files':>7}{'MB a file':>16}{'row groups':>12}")
        made = seconds_of(lambda: rows.write.format("noop").mode("overwrite").save())
        print(f"{'making the rows alone':<28}{made:>9.1f}")
        plain = f"{root}/plain"
        seconds = seconds_of(lambda: rows.write.format("delta").save(plain))
        _report("plain Delta, no checks", seconds, plain)
        scattered = rows.repartition(8, "item_id")
        store = TableStore(spark, f"{root}/made")
        made_rows = Made(rows, as_they_are, rows.schema)
        _report("store, by the tasks", seconds_of(lambda: store.write_made(made_rows, TOP_N, _RUN)), store.path(TOP_N))
        for name, given, in_order in (("in order", rows, True), ("any order", scattered, False)):
            store = TableStore(spark, f"{root}/{in_order}")
            seconds = seconds_of(partial(store.write, given, TOP_N, _RUN, in_order=in_order))
            _report(f"store, {name}", seconds, store.path(TOP_N))
    finally:
        spark.stop()
        shutil.rmtree(root, ignore_errors=True)


def as_they_are(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Makes rows out of themselves."""
    yield from batches


def _rows(spark: SparkSession, users: int, n: int, items: int, files: int) -> DataFrame:
    return spark.range(0, users * n, 1, files).selectExpr(
        f"'{_RUN}' AS run_id",
        f"'fm-{_RUN}' AS model_version",
        "'default' AS list_name",
        f"id DIV {n} AS user_id",
        f"CAST(id % {n} + 1 AS int) AS rank",
        f"CAST(pow(pmod(xxhash64(id), 1000003) / 1000003, 3) * {items} AS bigint) AS item_id",
        "'model' AS source",
    ).selectExpr(
        "*",
        "concat('A film with a title, The ', item_id, ' (1999)') AS title",
        "5 - rank / 50 + pmod(xxhash64(user_id, rank), 1000003) / 1e9D AS score",
        *(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in UNASKED.items()),
    )  # fmt: skip


def _warm(spark: SparkSession, root: str) -> None:
    few = _rows(spark, 100, 10, 50, 2)
    TableStore(spark, f"{root}/warm").write_made(Made(few, as_they_are, few.schema), TOP_N, _RUN)
    for in_order in (True, False):
        TableStore(spark, f"{root}/warm-{in_order}").write(_rows(spark, 100, 10, 50, 2), TOP_N, _RUN, in_order=in_order)


def _report(name: str, seconds: float, path: str) -> None:
    table = DeltaTable(path)
    sizes = sorted(size / 1e6 for size in table.get_add_actions(flatten=True)["size_bytes"].to_pylist())
    groups = sum(pq.ParquetFile(file).num_row_groups for file in table.file_uris())
    print(f"{name:<28}{seconds:>9.1f}{len(sizes):>7}{sizes[0]:>9.0f} -{sizes[-1]:>5.0f}{groups:>12}", flush=True)


if __name__ == "__main__":
    main()
