"""train: events -> fm_model, fm_parameters, training_history."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.tables.store import TableStore
from fm_spark.training.train import TrainResult, train


def run(spark: SparkSession, config: Config) -> TrainResult:
    """Trains the factorization machine on the events table and saves it."""
    return train(TableStore(spark, config.tables.root), config)


def main() -> int:
    """Entry point of ``spark-submit``; returns the exit code."""
    return job_main("train", run)


if __name__ == "__main__":
    raise SystemExit(main())
