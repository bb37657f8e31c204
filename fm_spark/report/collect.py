"""Reads what a run published, at the versions that its publication names.

Whatever grows with users or events is aggregated by Spark; only counts, small tables and a few users come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pyspark.sql import Row

from fm_spark.config_sections import ReportConfig
from fm_spark.parallel import side_by_side
from fm_spark.report.facts import Curve, DataFacts, ItemFacts, MetricFacts, QualityCheck, RunFacts, TrainingFacts
from fm_spark.report.lists import cluster_facts, cluster_line, history_lengths, item_facts, user_lists
from fm_spark.report.pinned import Pinned, utc
from fm_spark.report.similar import genre_shares, similar_facts
from fm_spark.report.words import CLASS_METRICS, PREDICTED, PREDICTION_NAMES
from fm_spark.tables.contracts import DATA_QUALITY, EVALUATION, FM_MODEL, TRAINING_HISTORY
from fm_spark.tables.publications import published
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

_STAGES = {"tune": 0, "evaluation": 1, "publish": 2}


def collect_run(
    store: TableStore, run_id: str, shown: ReportConfig, seconds: Mapping[str, float] | None = None
) -> RunFacts:
    """The facts of a published run; ``run_id = ""`` takes the newest.

    Args:
        seconds: wall-clock seconds by step, when the caller has measured them.

    Raises:
        TableError: the run is not published, or a version that it names is gone.
    """
    publication = published(store, run_id)
    pinned = Pinned(store, publication)
    # each of them is a few small queries, whose planning takes longer than their work
    found: dict[str, Any] = side_by_side(
        {
            "tables": pinned.sizes,
            "items": lambda: item_facts(pinned),
            "lengths": lambda: history_lengths(pinned),
            "metrics": lambda: _metrics(pinned),
            "training": lambda: _training(pinned),
            "checks": lambda: _checks(pinned),
            "similar": lambda: similar_facts(pinned, shown.similar),
            "genre_shares": lambda: genre_shares(pinned),
        }
    )
    items, lengths = found["items"], found["lengths"]
    shown_rows: dict[str, Any] = side_by_side(
        {
            "users": lambda: user_lists(pinned, lengths, shown.users),
            "clusters": lambda: cluster_facts(pinned, items),
            "line": lambda: cluster_line(pinned),
        }
    )
    clusters = shown_rows["clusters"]
    return RunFacts(
        run_id=publication.run_id,
        model_version=publication.model_version,
        published_at=publication.published_at,
        root=store.root,
        data=_data(found["checks"], lengths, items),
        metrics=found["metrics"],
        training=found["training"],
        users=shown_rows["users"],
        clusters=clusters[: shown.clusters],
        cluster_labels={cluster.cluster_id: cluster.label for cluster in clusters},
        tables=found["tables"],
        items=items,
        seconds=dict(seconds or {}),
        similar=found["similar"],
        genre_shares=found["genre_shares"],
        cluster_line=shown_rows["line"],
    )


def _checks(pinned: Pinned) -> list[QualityCheck]:
    rows = pinned.rows(DATA_QUALITY, ("step", "check", "rows", "action", "detail")).to_pylist()
    return [QualityCheck(**row) for row in rows]


def _data(checks: list[QualityCheck], lengths: list[Row], items: ItemFacts) -> DataFacts:
    return DataFacts(
        users=sum(row["users"] for row in lengths),
        items=int((items.count > 0).sum()),
        catalogue=len(items.count),
        events=sum(row["events"] for row in lengths),
        positives=sum(row["positives"] for row in lengths),
        test_events=sum(row["test_events"] for row in lengths),
        first=min((utc(row["first"]) for row in lengths), default=None),
        last=max((utc(row["last"]) for row in lengths), default=None),
        quality=checks,
    )


def _metrics(pinned: Pinned) -> MetricFacts:
    rows = pinned.rows(EVALUATION).to_pylist()
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["metric"], {})[row["ranker"]] = row["value"]
    predicted = [row for row in rows if row["metric"] == PREDICTED]
    # publish refuses a run without metrics
    other = (*PREDICTION_NAMES, PREDICTED, *CLASS_METRICS)
    first = next(row for row in rows if row["ranker"] == "fm" and row["metric"] not in other)
    return MetricFacts(
        {name: of_rankers for name, of_rankers in values.items() if name not in other},
        first["split"],
        first["users"],
        first["users_without_truth"],
        first["items"],
        {name: of_rankers for name, of_rankers in values.items() if name in PREDICTION_NAMES},
        int(predicted[0]["value"]) if predicted else 0,
        predicted[0]["users"] if predicted else 0,
    )


def _training(pinned: Pinned) -> TrainingFacts:
    models = {row["purpose"]: row for row in pinned.rows(FM_MODEL).to_pylist()}
    model = models[PUBLISH]
    return TrainingFacts(
        epochs={purpose: row["epochs"] for purpose, row in sorted(models.items())},
        k=model["k"],
        decays=list(model["decays"]),
        settings=dict(sorted(dict(model["hyperparameters"]).items())),
        validation=dict(sorted(dict(model["metrics"]).items())),
        curves=_curves(pinned),
    )


def _curves(pinned: Pinned) -> list[Curve]:
    """One curve a fit; the rounds of an epoch are averaged by their events here, there are only a few thousand."""
    metrics = ["ndcg_at_10", "recall_at_20", "rmse", "log_loss"]
    rounds = pinned.rows(TRAINING_HISTORY, ("stage", "candidate", "epoch", "loss", "events", *metrics)).to_pandas()
    rounds["loss"] *= rounds["events"]
    epochs = rounds.groupby(["stage", "candidate", "epoch"], sort=True).agg(
        {"loss": "sum", "events": "sum", **dict.fromkeys(metrics, "max")}
    )
    epochs["loss"] /= epochs["events"]
    curves = [
        Curve(
            stage=str(fit.index[0][0]),
            candidate=int(fit.index[0][1]),
            epochs=fit.index.get_level_values("epoch").tolist(),
            loss=fit["loss"].tolist(),
            **{name: _or_none(fit[name]) for name in metrics},
        )
        for _, fit in epochs.groupby(level=["stage", "candidate"])
    ]
    return sorted(curves, key=lambda curve: (_STAGES.get(curve.stage, len(_STAGES)), curve.candidate))


def _or_none(values: pd.Series[float]) -> list[float | None]:
    return [None if value is None or math.isnan(value) else float(value) for value in values]
