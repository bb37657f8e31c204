"""Job ``score``: answers the pairs of users and items of score.input, and writes them to score.output."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.ranking.pair_jobs import PairResult, answer_pairs


def run(spark: SparkSession, config: Config) -> PairResult:
    """Scores every pair with the model of ``score.model``; rows, columns and order of the input are kept."""
    return answer_pairs(spark, config, "score")


def main() -> None:
    """Entry point of ``./spark-submit.sh score``."""
    job_main("score", run)


if __name__ == "__main__":
    main()
