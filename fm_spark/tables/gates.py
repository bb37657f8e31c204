"""What a run has to fulfil before readers see it: measured, compared, kept with the publication."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import functions as F

from fm_spark.config_sections import PublishConfig
from fm_spark.tables.contracts import (
    CLUSTER_PROFILES,
    EVALUATION,
    EVENTS,
    FM_PARAMETERS,
    ITEM_CLUSTERS,
    ITEMS,
    TOP_N,
    VOCABULARY,
    Contract,
)
from fm_spark.tables.published import Gate, Publication
from fm_spark.tables.store import TableStore

NOT_EMPTY = (EVENTS, ITEMS, VOCABULARY, FM_PARAMETERS, EVALUATION, TOP_N, ITEM_CLUSTERS, CLUSTER_PROFILES)
"""The tables that must have rows; others may be empty for good reasons."""


def metric_gates(settings: PublishConfig, metrics: Mapping[str, float], before: Publication | None) -> list[Gate]:
    """The gates on quality that are switched on; a metric that was not measured counts as 0.

    Args:
        metrics: of the run, as ``ranker.metric``.
        before: the publication to compare with; without one nothing can drop.
    """
    name = f"fm.{settings.metric}"
    value = metrics.get(name, 0.0)
    gates = []
    if settings.min_metric > 0:
        gates.append(_gate("min_metric", value, settings.min_metric))
    if settings.min_over_popularity > 0:
        limit = settings.min_over_popularity * metrics.get(f"popularity.{settings.metric}", 0.0)
        gates.append(_gate("min_over_popularity", value, limit))
    if settings.max_drop < 1 and before is not None:
        gates.append(_gate("max_drop", value, (1 - settings.max_drop) * before.metrics.get(name, 0.0)))
    return gates


def user_gate(store: TableStore, settings: PublishConfig, run_id: str, tables: Mapping[str, int]) -> list[Gate]:
    """Share of the users of the events who have a list; no gate when ``publish.min_users`` is 0."""
    if settings.min_users == 0:
        return []
    known = store.read(EVENTS, tables.get(EVENTS.name)).where(F.col("position") == 0).select("user_id")
    lists = store.read(TOP_N, tables.get(TOP_N.name)).where((F.col("run_id") == F.lit(run_id)) & (F.col("rank") == 1))
    listed = lists.select("user_id").distinct().withColumn("listed", F.lit(1))
    row = known.join(listed, on="user_id", how="left").agg(F.count(F.lit(1)), F.count("listed")).collect()[0]
    return [_gate("min_users", row[1] / max(row[0], 1), settings.min_users)]


def rows_gate(store: TableStore, run_id: str, tables: Mapping[str, int]) -> list[Gate]:
    """How many of the tables that must have rows of the run have some."""
    there = [contract for contract in NOT_EMPTY if _has_rows(store, contract, run_id, tables.get(contract.name))]
    return [_gate("tables_with_rows", float(len(there)), float(len(NOT_EMPTY)))]


def failures(gates: list[Gate]) -> str:
    """The gates that failed, for a message; ``""`` when all have passed."""
    texts = [f"{one.gate}: {one.value:.4g} is below {one.limit:.4g}" for one in gates if not one.passed]
    return "; ".join(texts)


def _gate(name: str, value: float, limit: float) -> Gate:
    return Gate(name, value, limit, value >= limit)


def _has_rows(store: TableStore, contract: Contract, run_id: str, version: int | None) -> bool:
    if version is None:
        return False
    commit = store.commit(contract, version)
    if commit is not None and commit.rows is not None and commit.run_id == run_id:
        return commit.rows > 0  # what the log says costs no Spark job
    where = {"run_id": run_id} if contract.mode == "by_run" else {}
    return store.one(contract, "run_id", version, where) is not None
