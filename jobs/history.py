"""Shows the runs, how good they are and what changed between them; nothing is written."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.report.history import RunLine, collect_history, print_history
from fm_spark.tables.store import TableStore


def run(spark: SparkSession, config: Config) -> list[RunLine]:
    """Prints the runs of ``tables.root``, oldest first; also when none of them is published."""
    store = TableStore(spark, config.tables.root)
    lines = collect_history(store)
    print_history(lines, store.root)
    return lines


def main() -> None:
    """Entry point of ``./spark-submit.sh history``."""
    job_main("history", run)


if __name__ == "__main__":
    main()
