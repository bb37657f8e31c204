"""The rows of the ``evaluation`` table."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from fm_spark.core.class_metrics import class_metrics
from fm_spark.core.metrics import MetricSums
from fm_spark.errors import InputError
from fm_spark.evaluation.classes import Classified
from fm_spark.evaluation.evaluate import FM
from fm_spark.evaluation.predictions import PREDICTED, Predicted
from fm_spark.tables.contracts import EVALUATION
from fm_spark.tables.runs import ModelRecord


def evaluation_rows(
    model: ModelRecord,
    sums: dict[str, MetricSums],
    n_items: int,
    predicted: Predicted | None = None,
    classified: Classified | None = None,
) -> pd.DataFrame:
    """The rows of the ``evaluation`` table for what :func:`~fm_spark.evaluation.evaluate.rank_test_part` measured.

    Args:
        predicted: what :func:`~fm_spark.evaluation.predictions.later_predictions` measured. A metric that its events
            do not define (the AUC of labels that are all the same) has no row.
        classified: what :func:`~fm_spark.evaluation.classes.later_classes` measured.

    Raises:
        InputError: no user has a held-out event.
    """
    settings = json.loads(model.config)["events"]
    if sums[FM].users == 0:
        raise InputError(
            "nothing to evaluate: no user has a held-out event; lower events.min_positives "
            f"(now {settings['min_positives']}) or raise events.test_fraction (now {settings['test_fraction']}), "
            "then run events and train again"
        )
    split = settings["split"]
    rows = [
        (
            model.run_id,
            model.model_version,
            ranker,
            name,
            value,
            split,
            s.users,
            s.users_without_truth,
            n_items,
        )
        for ranker, s in sums.items()
        for name, value in s.means().items()
    ]
    if predicted is not None:
        counts = (split, predicted.users, predicted.users_without, n_items)
        for ranker, of_events in predicted.sums.items():
            values = {**of_events.means(), PREDICTED: float(of_events.events)}
            rows += [
                (model.run_id, model.model_version, ranker, name, value, *counts)
                for name, value in values.items()
                if np.isfinite(value)
            ]
    if classified is not None:
        own = (split, classified.users, classified.users_without, n_items)
        for ranker, table in classified.tables.items():
            rows += [
                (model.run_id, model.model_version, ranker, name, value, *own)
                for name, value in class_metrics(table).items()
            ]
    return pd.DataFrame(rows, columns=EVALUATION.column_names)
