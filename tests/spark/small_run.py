"""The tables of a tiny finished run, written by hand: what publish and the report read."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from fm_spark.tables import contracts as C
from fm_spark.tables.store import TableStore

START = datetime(2020, 1, 1, tzinfo=UTC)
# what a title may hold: markup of the terminal, of HTML, of plots, and letters outside ASCII
TITLES = {1: "[REC] (2007)", 2: "<b>Bold</b> & Co (1999)", 3: "Amélie (2001)", 4: "$9.99 (2008)", 5: "Fargo (1996)"}
HISTORIES = {10: [1, 2, 3, 4], 11: [3, 1], 12: [5]}
JOB_TABLES = {
    "events": (C.EVENTS, C.VOCABULARY, C.ITEMS, C.USERS, C.DATA_QUALITY),
    "train": (C.FM_PARAMETERS, C.FM_MODEL, C.TRAINING_HISTORY),
    "evaluate": (C.EVALUATION,),
    "recommend": (C.TOP_N,),
    "cluster": (
        C.ITEM_CLUSTERS,
        C.CLUSTER_PROFILES,
        C.CLUSTER_CHANGES,
        C.USER_CLUSTERS,
        C.USER_CLUSTER_PROFILES,
    ),
    "popular": (C.POPULAR_ITEMS,),
    "similar": (C.SIMILAR_ITEMS, C.SIMILAR_QUALITY),
    "audience": (C.ITEM_AUDIENCE,),
}


def schema(contract: C.Contract, id_type: str = "bigint") -> str:
    """The contract's columns as a DDL string."""
    return ", ".join(f"`{c.name}` {id_type if c.type == C.ID else c.type}" for c in contract.columns)


def frame(spark: SparkSession, contract: C.Contract, rows: list[dict[str, Any]]) -> DataFrame:
    """Rows by column name as a DataFrame of the contract's types."""
    ordered = [tuple(row[name] for name in contract.column_names) for row in rows]
    return spark.createDataFrame(ordered, schema(contract))


def copy_run(store: TableStore, jobs: tuple[str, ...] = tuple(JOB_TABLES)) -> dict[str, int]:
    """Lays the tables of the run ``r1`` into an empty store; written once and copied, because Spark writes slowly.

    Returns:
        The Delta versions by table name.
    """
    folder, versions = _written_once(store.spark)
    names = [contract.name for job in jobs for contract in JOB_TABLES[job]]
    for name in names:
        shutil.copytree(folder / name, Path(store.root) / name)
    return {name: versions[name] for name in names}


@cache
def _written_once(spark: SparkSession) -> tuple[Path, dict[str, int]]:
    folder = Path(tempfile.mkdtemp(prefix="small-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, write_run(TableStore(spark, str(folder)), "r1")


def write_run(store: TableStore, run_id: str, jobs: tuple[str, ...] = tuple(JOB_TABLES)) -> dict[str, int]:
    """Writes what the jobs would write; returns the Delta versions by table name."""
    rows = all_rows(run_id)
    versions: dict[str, int] = {}
    for job in jobs:
        for contract in JOB_TABLES[job]:
            if contract is C.FM_MODEL:
                for model in rows[C.FM_MODEL.name]:
                    model["input_versions"] = {
                        name: versions.get(name, 1) for name in ("events", "items", "vocabulary")
                    }
            # rows of the driver, which cost Spark least
            made = pd.DataFrame(rows[contract.name], columns=list(contract.column_names))
            versions[contract.name] = store.write(made, contract, run_id)
    return versions


def all_rows(run_id: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table but publications, by table name."""
    model = f"fm-{run_id}"
    own = {"run_id": run_id, "model_version": model}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (c.name for c in C.ALL)}
    for user, items in HISTORIES.items():
        for position, item in enumerate(items):
            rows["events"].append(
                {
                    "user_id": user, "item_id": item, "time": START + timedelta(days=position),
                    "value": 4.0 + position % 2,
                    "label": 1.0, "weight": 1.0, "split": "test" if position == 3 else "train", "position": position,
                    "item_feature": item - 1, "indices": [item - 1], "values": [1.0], "run_id": run_id,
                }
            )  # fmt: skip
    rows["users"] = [{"user_id": user, "attributes": {"color": ["red"]}, "run_id": run_id} for user in (10, 12)]
    for item, title in TITLES.items():
        liked_by = sum(item in items for items in HISTORIES.values())
        rows["items"].append(
            {
                "item_id": item, "title": title, "genres": ["Drama"], "year": None, "tags": [],
                "item_feature": item - 1, "count": liked_by, "attributes": {"brand": ["a"], "kinds": []},
                "run_id": run_id,
            }
        )  # fmt: skip
        rows["vocabulary"].append({"field": "item", "value": str(item), "feature": item - 1, "run_id": run_id})
        rows["fm_parameters"].append(
            {
                "field": "item", "value": str(item), "feature": item - 1, "bias": 0.1,
                "factors": [float(item), 1.0, float(item % 2)], "count": liked_by, **own,
            }
        )  # fmt: skip
        rows["item_clusters"].append(
            {
                "item_id": item,
                "title": title,
                "cluster_id": item % 2,
                "distance": 0.1,
                "is_medoid": item < 3,
                "supported": item < 5,
                **own,
            }
        )
    rows["data_quality"] = [
        {
            "run_id": run_id, "step": "events", "check": check, "rows": n, "action": "dropped", "detail": detail,
            "examples": [],
        }
        for check, n, detail in [("exact_duplicates", 2, "rows that repeat another one"), ("missing", 0, "no value")]
    ]  # fmt: skip
    rows["fm_model"] = [_model(run_id, model, "publish"), _model(run_id, f"{model}-eval", "evaluation")]
    rows["training_history"] = [
        {
            "stage": stage, "candidate": 0, "epoch": epoch, "round": 1, "loss": 3.0 / epoch,
            "ndcg_at_10": None if stage == "publish" else 0.1 * epoch,
            "recall_at_20": None, "rmse": None, "log_loss": None,
            "seconds_broadcast": 0.0, "seconds_compute": 0.1, "seconds_aggregate": 0.0,
            "seconds_step": 0.0, "bytes_broadcast": 10, "bytes_aggregated": 10, "events": 7, **own,
        }
        for stage in ("evaluation", "publish")
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    rows["evaluation"] = [
        {
            "ranker": ranker, "metric": metric, "value": value, "split": "user_time", "users": 1,
            "users_without_truth": 2, "items": 5, "run_id": run_id, "model_version": f"{model}-eval",
        }
        for metric in ("ndcg_at_10", "mrr")
        for ranker, value in (("fm", 0.5), ("popularity", 0.25))
    ]  # fmt: skip
    for user in HISTORIES:
        for rank, item in enumerate((4, 5), start=1):
            rows["top_n"].append(
                {
                    "list_name": "default", "user_id": user, "rank": rank, "item_id": item,
                    "title": TITLES[item], "score": 3.0 - rank, "source": "model", "contributions": None,
                    "because": None, "diversity_cost": None, **own,
                }
            )  # fmt: skip
    rows["cluster_profiles"] = [
        {
            "cluster_id": cluster, "size": 2 + cluster, "label": f"Drama {cluster}",
            "top_genres": [("Drama", 1.0, 1.0)],
            "top_tags": [], "top_decades": [("1990s", 1.0, 1.2)], "exemplars": [("1", TITLES[1], 0.1, 2)],
            "cohesion": 0.9, "status": "born", "stability": None, **own,
        }
        for cluster in (0, 1)
    ]  # fmt: skip
    rows["user_clusters"] = [{"user_id": user, "cluster_id": 0, "distance": 0.2, **own} for user in HISTORIES]
    rows["user_cluster_profiles"] = [
        {
            "cluster_id": 0, "size": 3, "label": "Drama: Fargo (1996)", "top_genres": [("Drama", 1.0, 1.2)],
            "exemplars": [("5", TITLES[5], 0.3, 1.2)], **own,
        }
    ]  # fmt: skip
    rows["cluster_changes"] = [
        {
            "cluster_id": cluster, "status": "born", "size": 2 + cluster, "size_before": 0, "counterpart_id": None,
            "shared_items": 0, "stability": None, "matched_run_id": None, "next_id": 2, **own,
        }
        for cluster in (0, 1)
    ]  # fmt: skip
    rows["popular_items"] = [
        {
            "kind": "count", "genre": genre, "rank": rank, "item_id": item, "title": TITLES[item], "score": 3.0 - rank,
            "count": 3 - rank, "mean_value": 4.0, "recent_count": 1, "previous_count": 0, **own,
        }
        for genre in ("", "Drama")
        for rank, item in enumerate((1, 3), start=1)
    ]  # fmt: skip
    rows["similar_items"] = [
        {
            "item_id": item, "title": TITLES[item], "rank": rank, "similar_item_id": other,
            "similar_title": TITLES[other], "score": 1.0 - rank / 10, "shares_genre": True, "source": "model", **own,
        }
        for item in TITLES
        for rank, other in enumerate((other for other in TITLES if other != item), start=1)
    ]  # fmt: skip
    rows["item_audience"] = [
        {
            "kind": "item", "target": "1", "title": TITLES[1], "rank": rank, "user_id": user, "score": -1.0 - rank,
            "source": "model", **own,
        }
        for rank, user in enumerate((12, 11), start=1)
    ]  # fmt: skip
    rows["similar_quality"] = [
        {"neighbours": name, "share": share, "pairs": 20, "items": 5, **own}
        for name, share in (("model", 1.0), ("co_occurrence", 0.75), ("random", 0.5))
    ]
    return rows


def _model(run_id: str, version: str, purpose: str) -> dict[str, Any]:
    return {
        "model_version": version, "run_id": run_id, "created_at": START, "purpose": purpose, "loss": "softmax", "k": 3,
        "w0": 0.0, "epochs": 3, "decays": [0.8], "hyperparameters": {"k": "3", "learning_rate": "0.1"},
        "metrics": {"ndcg_at_10": 0.3}, "input_versions": {}, "library_versions": {"python": "3"}, "config": "{}",
    }  # fmt: skip
