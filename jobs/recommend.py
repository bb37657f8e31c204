"""Job ``recommend``: ranks the catalogue for every user with the model that serves readers and writes top_n."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.top_n import SOURCE, top_n_rows
from fm_spark.tables.contracts import TOP_N
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.recommend")


@dataclass(frozen=True)
class RecommendResult:
    """The lists written (of users with at least one item left), their rows, and the Delta version of ``top_n``."""

    run_id: str
    model_version: str
    users: int
    rows: int
    version: int


def run(spark: SparkSession, config: Config) -> RecommendResult:
    """Writes the lists of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, PUBLISH)
    run_id, model_version = inputs.model.run_id, inputs.model.model_version
    recommend = config.recommend
    own = [F.lit(run_id).alias("run_id"), F.lit(model_version).alias("model_version"), F.lit(SOURCE).alias("source")]
    with top_n_rows(inputs.events, inputs.machine, inputs.catalogue, recommend.n, recommend.exclude_seen) as rows:
        version = store.write(rows.select("*", *own), TOP_N, run_id)
    written = store.read(TOP_N, version).where(F.col("run_id") == F.lit(run_id))
    users, rows_written = written.agg(F.count_if(F.col("rank") == 1), F.count("*")).collect()[0]
    log.info("%s lists, %s rows", f"{users:,}", f"{rows_written:,}")
    return RecommendResult(run_id, model_version, users, rows_written, version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("recommend", run)


if __name__ == "__main__":
    main()
