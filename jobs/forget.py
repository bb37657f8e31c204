"""Job ``forget``: takes persons out of every table and publishes the current publication again."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.config_checks import check_asked
from fm_spark.report.upkeep import print_forgotten
from fm_spark.tables.forgetting import Forgotten, forget
from fm_spark.tables.store import TableStore


def run(spark: SparkSession, config: Config) -> Forgotten:
    """Forgets ``forget.users``; says what was removed and which versions still hold them."""
    check_asked("forget", config)
    told = forget(TableStore(spark, config.tables.root), config.forget.users, config.forget.dry_run)
    print_forgotten(told, config.forget.dry_run)
    return told


def main() -> None:
    """Entry point of spark-submit."""
    job_main("forget", run)


if __name__ == "__main__":
    main()
