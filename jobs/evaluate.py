"""Job ``evaluate``: measures the model that has not seen the test part, beside popularity, and writes evaluation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.core.class_metrics import class_metrics
from fm_spark.evaluation.classes import later_classes
from fm_spark.evaluation.evaluate import FM, rank_test_part
from fm_spark.evaluation.predictions import later_predictions
from fm_spark.evaluation.rows import evaluation_rows
from fm_spark.parallel import side_by_side
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
        classes: accuracy and macro_f1 of star classes; empty for a log without ratings.
    """

    run_id: str
    model_version: str
    metrics: dict[str, dict[str, float]]
    predictions: dict[str, dict[str, float]]
    classes: dict[str, dict[str, float]]
    users: int
    users_without_truth: int
    version: int


def run(spark: SparkSession, config: Config) -> EvaluateResult:
    """Writes the metrics of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, runs.EVALUATION)
    model = inputs.model
    read = inputs.events, inputs.machine, inputs.catalogue
    found: dict[str, Any] = side_by_side(
        {
            "rankings": partial(rank_test_part, *read),
            "predictions": partial(later_predictions, *read),
            "classes": partial(later_classes, *read, config.score.neighbours),
        }
    )
    sums, predicted, classified = found.values()
    rows = evaluation_rows(model, sums, inputs.catalogue.n_items, predicted, classified)
    version = store.write(rows, EVALUATION, model.run_id)
    metrics = {ranker: s.means() for ranker, s in sums.items()}
    predictions = {name: s.means() for name, s in predicted.sums.items()} if predicted else {}
    classes = {name: class_metrics(table) for name, table in classified.tables.items()} if classified else {}
    for ranker, values in (*metrics.items(), *predictions.items(), *classes.items()):
        log.info("%s: %s", ranker, ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    users, without = sums[FM].users, sums[FM].users_without_truth
    return EvaluateResult(model.run_id, model.model_version, metrics, predictions, classes, users, without, version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("evaluate", run)


if __name__ == "__main__":
    main()
