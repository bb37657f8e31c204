"""Job ``evaluate``: measures the model that has not seen the test part, beside popularity, and writes evaluation."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.evaluation.evaluate import FM, rank_test_part
from fm_spark.evaluation.predictions import later_predictions
from fm_spark.evaluation.rows import evaluation_rows
from fm_spark.ranking.inputs import load_inputs
from fm_spark.tables import runs
from fm_spark.tables.contracts import EVALUATION
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.evaluate")


@dataclass(frozen=True)
class EvaluateResult:
    """The metrics by ranker and name, the users that they are means of, and the Delta version of ``evaluation``.

    Attributes:
        predictions: metrics of predicted ratings or probabilities by predictor; empty for machines that only rank.
    """

    run_id: str
    model_version: str
    metrics: dict[str, dict[str, float]]
    predictions: dict[str, dict[str, float]]
    users: int
    users_without_truth: int
    version: int


def run(spark: SparkSession, config: Config) -> EvaluateResult:
    """Writes the metrics of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, runs.EVALUATION)
    model = inputs.model
    sums = rank_test_part(inputs.events, inputs.machine, inputs.catalogue)
    predicted = later_predictions(inputs.events, inputs.machine, inputs.catalogue)
    rows = evaluation_rows(model, sums, inputs.catalogue.n_items, predicted)
    version = store.write(rows, EVALUATION, model.run_id)
    metrics = {ranker: s.means() for ranker, s in sums.items()}
    predictions = {name: s.means() for name, s in predicted.sums.items()} if predicted else {}
    for ranker, values in (*metrics.items(), *predictions.items()):
        log.info("%s: %s", ranker, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    users, without = sums[FM].users, sums[FM].users_without_truth
    return EvaluateResult(model.run_id, model.model_version, metrics, predictions, users, without, version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("evaluate", run)


if __name__ == "__main__":
    main()
