"""Reads what a run published, at the versions that its publication names.

Whatever grows with users or events is aggregated by Spark; only counts, small tables and a few users come back.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import functions as F

from fm_spark.config import ReportConfig
from fm_spark.report.facts import Curve, DataFacts, MetricFacts, QualityCheck, RunFacts, TrainingFacts
from fm_spark.report.lists import cluster_facts, item_facts, user_lists
from fm_spark.report.pinned import Pinned, utc
from fm_spark.tables.contracts import DATA_QUALITY, EVALUATION, EVENTS, FM_MODEL, TRAINING_HISTORY
from fm_spark.tables.publications import published
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore


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
    tables = pinned.sizes()
    sizes = {table.name: table.rows for table in tables}
    return RunFacts(
        run_id=publication.run_id,
        model_version=publication.model_version,
        published_at=publication.published_at,
        root=store.root,
        data=_data(pinned, catalogue=sizes["items"]),
        metrics=_metrics(pinned),
        training=_training(pinned),
        users=user_lists(pinned, shown.users),
        clusters=cluster_facts(pinned, shown.clusters),
        n_clusters=sizes["cluster_profiles"],
        tables=tables,
        items=item_facts(pinned),
        seconds=dict(seconds or {}),
    )


def _data(pinned: Pinned, catalogue: int) -> DataFacts:
    counts = (
        pinned.read(EVENTS)
        .agg(
            F.count(F.lit(1)).alias("events"),
            F.count_distinct("user_id").alias("users"),
            F.count_distinct("item_id").alias("items"),
            F.sum((F.col("label") > 0).cast("bigint")).alias("positives"),
            F.sum((F.col("split") == "test").cast("bigint")).alias("test_events"),
            F.unix_micros(F.min("time")).alias("first"),
            F.unix_micros(F.max("time")).alias("last"),
        )
        .collect()[0]
    )
    checks = pinned.read(DATA_QUALITY).select("step", "check", "rows", "action", "detail").collect()
    return DataFacts(
        users=counts["users"],
        items=counts["items"],
        catalogue=catalogue,
        events=counts["events"],
        positives=counts["positives"] or 0,
        test_events=counts["test_events"] or 0,
        first=None if counts["first"] is None else utc(counts["first"]),
        last=None if counts["last"] is None else utc(counts["last"]),
        quality=[QualityCheck(*row) for row in checks],
    )


def _metrics(pinned: Pinned) -> MetricFacts:
    rows = pinned.read(EVALUATION).orderBy("metric", "ranker").collect()
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["metric"], {})[row["ranker"]] = row["value"]
    first = rows[0]  # publish refuses a run without metrics
    return MetricFacts(values, first["split"], first["users"], first["users_without_truth"], first["items"])


def _training(pinned: Pinned) -> TrainingFacts:
    models = {row["purpose"]: row for row in pinned.read(FM_MODEL).collect()}
    model = models[PUBLISH]
    return TrainingFacts(
        epochs={purpose: row["epochs"] for purpose, row in sorted(models.items())},
        k=model["k"],
        decays=list(model["decays"]),
        settings=dict(sorted(model["hyperparameters"].items())),
        validation=dict(sorted(model["metrics"].items())),
        curves=_curves(pinned),
    )


def _curves(pinned: Pinned) -> list[Curve]:
    by_epoch = (
        pinned.read(TRAINING_HISTORY)
        .groupBy("stage", "candidate", "epoch")
        .agg(
            (F.sum(F.col("loss") * F.col("events")) / F.sum("events")).alias("loss"),
            F.max("ndcg_at_10").alias("ndcg"),
            F.max("recall_at_20").alias("recall"),
        )
        .orderBy("stage", "candidate", "epoch")
        .collect()
    )
    fits: dict[tuple[str, int], Curve] = {}
    for row in by_epoch:
        key = (row["stage"], row["candidate"])
        curve = fits.setdefault(key, Curve(*key, epochs=[], loss=[], ndcg_at_10=[], recall_at_20=[]))
        curve.epochs.append(row["epoch"])
        curve.loss.append(row["loss"])
        curve.ndcg_at_10.append(row["ndcg"])
        curve.recall_at_20.append(row["recall"])
    return list(fits.values())
