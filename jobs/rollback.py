"""Publishes an earlier run again: ``./spark-submit.sh rollback --to RUN_ID``."""

from __future__ import annotations

import logging

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.config_checks import check_asked
from fm_spark.tables.publications import Published
from fm_spark.tables.rollback import roll_back
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.rollback")


def run(spark: SparkSession, config: Config) -> Published:
    """Publishes ``run.id`` again."""
    check_asked("rollback", config)
    made = roll_back(TableStore(spark, config.tables.root), config.run.id)
    if made.row.rolled_back_from is None:
        log.info("run %s is the latest publication already; nothing was changed", made.row.run_id)
    else:
        log.info("readers follow run %s again, as publication %d", made.row.run_id, made.row.publication)
    return made


def main() -> None:
    """Entry point of ``./spark-submit.sh rollback``."""
    job_main("rollback", run)


if __name__ == "__main__":
    main()
