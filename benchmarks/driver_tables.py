"""Times what a job does with a table that the driver holds: on a local root without Spark, elsewhere with it.

    python -m benchmarks.driver_tables [--times 5]

The same store twice, the second time told that its root is not a local one. The first pass of each compiles and loads
and is shown as ``cold``; the others are the rest of a pipeline.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.clock import seconds_of
from fm_spark.config import load_config
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.contracts import EVALUATION, ITEM_CLUSTERS
from fm_spark.tables.files import Folder
from fm_spark.tables.store import TableStore

_ITEMS = 10_000


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="passes, each with tables of its own")
    a = parser.parse_args()
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(local_submit_args("local[2]", [], {}))
    spark = open_session("benchmark driver_tables", load_config())
    with tempfile.TemporaryDirectory() as root:
        local = [_pass(TableStore(spark, f"{root}/local-{i}")) for i in range(a.times)]
        with patch.object(Folder, "local", lambda _: None):
            elsewhere = [_pass(TableStore(spark, f"{root}/spark-{i}")) for i in range(a.times)]
    print(f"a table of {_ITEMS:,} rows, local[2], seconds")
    print(f"{'':<28}{'driver, cold':>14}{'driver':>10}{'Spark, cold':>14}{'Spark':>10}")
    for step in local[0]:
        of = [[one[step] for one in passes] for passes in (local, elsewhere)]
        cold, warm = [seconds[0] for seconds in of], [float(np.median(seconds[1:])) for seconds in of]
        print(f"{step:<28}{cold[0]:>14.3f}{warm[0]:>10.3f}{cold[1]:>14.3f}{warm[1]:>10.3f}")
    spark.stop()


def _pass(store: TableStore) -> dict[str, float]:
    place = np.arange(_ITEMS)
    rows = pd.DataFrame(
        {
            "run_id": "r1", "model_version": "m1", "item_id": place, "title": [f"Film {i}" for i in place],
            "cluster_id": (place % 16).astype(np.int32), "distance": place / _ITEMS, "is_medoid": False,
            "below_support": False,
        }
    )  # fmt: skip
    own = {name: rows[name] for name in ITEM_CLUSTERS.column_names if name in rows}
    lacking = {c.name: _any(c.type) for c in ITEM_CLUSTERS.columns if c.name not in own}
    rows = pd.DataFrame(own).assign(**lacking)
    return {
        "look for a missing table": seconds_of(lambda: store.exists(EVALUATION)),
        "write a new table": seconds_of(lambda: store.write(rows, ITEM_CLUSTERS, "r1")),
        "write another run": seconds_of(lambda: store.write(rows.assign(run_id="r2"), ITEM_CLUSTERS, "r2")),
        "write that run again": seconds_of(lambda: store.write(rows.assign(run_id="r2"), ITEM_CLUSTERS, "r2")),
        "read a run": seconds_of(lambda: store.rows(ITEM_CLUSTERS, where={"run_id": "r2"})),
        "find one row of a run": seconds_of(lambda: store.one(ITEM_CLUSTERS, "run_id", where={"run_id": "r1"})),
    }


def _any(type_: str) -> object:
    return {"string": "", "int": 1, "bigint": 1, "double": 0.5, "boolean": False}[type_]


if __name__ == "__main__":
    main()
