"""plan: what training will cost, from the tables or from given counts, and the Spark settings it wants."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.core.planner import Plan
from fm_spark.report.plan import print_plan
from fm_spark.tables.store import TableStore
from fm_spark.training.advice import recommended
from fm_spark.training.capacity import limits_of, shortfall
from fm_spark.training.counts import find_counts
from fm_spark.training.planning import cluster_of, described_cluster, plan_training


def run(spark: SparkSession, config: Config) -> Plan:
    """Prints the plan; nothing is trained and nothing is written."""
    counts = find_counts(TableStore(spark, config.tables.root), config)
    made = plan_training(config, counts, described_cluster(config, cluster_of(spark)))
    limits = limits_of(spark)
    elsewhere = bool(config.plan.executors or config.plan.cores)
    problem = None if elsewhere else shortfall(made, limits)
    print_plan(made, counts, recommended(made, limits.local and not elsewhere), problem)
    return made


def main() -> None:
    """Entry point of spark-submit."""
    job_main("plan", run)


if __name__ == "__main__":
    main()
