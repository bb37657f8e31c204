"""Job ``rerank``: puts the candidates of every user in rerank.input in order, and writes them to rerank.output."""

from __future__ import annotations

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.ranking.pair_jobs import PairResult, answer_pairs


def run(spark: SparkSession, config: Config) -> PairResult:
    """Ranks the candidates of each user with the model of ``score.model``; none is lost."""
    return answer_pairs(spark, config, "rerank")


def main() -> None:
    """Entry point of ``./spark-submit.sh rerank``."""
    job_main("rerank", run)


if __name__ == "__main__":
    main()
