"""Job ``maintain``: removes what no publication needs any more, joins small files; ``--dry-run`` prints it alone."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.report.upkeep import print_maintenance
from fm_spark.tables.maintenance import TablePlan, maintain
from fm_spark.tables.store import TableStore


def run(spark: SparkSession, config: Config) -> list[TablePlan]:
    """Looks after every table under ``tables.root``; returns what it did, or with ``dry_run`` would do, by table."""
    plans = maintain(TableStore(spark, config.tables.root), config.maintain)
    print_maintenance(plans, config.maintain.dry_run)
    return plans


def main() -> None:
    """Entry point of spark-submit."""
    job_main("maintain", run)


if __name__ == "__main__":
    main()
