"""Publications: one row that names the table versions of a run, so that readers never see a mix of runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import pandas as pd
from pyspark.sql import functions as F

from fm_spark.errors import TableError
from fm_spark.tables.contracts import ALL, EVALUATION, FM_MODEL, ITEM_CLUSTERS, PUBLICATIONS, TOP_N, USERS, Contract
from fm_spark.tables.store import WRITTEN_BY, TableStore


@dataclass(frozen=True)
class Publication:
    """One row of ``publications``; the fields are its columns."""

    run_id: str
    model_version: str
    published_at: datetime
    tables: dict[str, int]
    metrics: dict[str, float]


def publish(store: TableStore, run_id: str, model_version: str) -> int:
    """Names the versions of the run's tables in one row; returns the Delta version of ``publications``.

    A table that the model was trained on counts at the version that training read; any other at the newest version
    that the run committed; one that the run had no need to change at its newest version.

    Raises:
        TableError: the run has no lists, clusters or metrics yet; the message names the job to run.
    """
    metrics = _metrics(store, run_id)
    found = {
        EVALUATION: bool(metrics),
        TOP_N: _has_rows(store, TOP_N, run_id, model_version),
        ITEM_CLUSTERS: _has_rows(store, ITEM_CLUSTERS, run_id, model_version),
    }
    for contract, there in found.items():
        if not there:
            raise TableError(
                f"run {run_id} cannot be published: {contract.name} has no rows of it and its model {model_version}; "
                f"run ./spark-submit.sh {WRITTEN_BY[contract.name]} --run-id {run_id} first"
            )
    row = (run_id, model_version, datetime.now(UTC), _versions(store, run_id, model_version), metrics)
    return store.write(pd.DataFrame([row], columns=[f.name for f in fields(Publication)]), PUBLICATIONS, run_id)


def published(store: TableStore, run_id: str = "") -> Publication:
    """The newest publication, or that of a run.

    Raises:
        TableError: there is none.
    """
    rows = store.read(PUBLICATIONS)
    if run_id:
        rows = rows.where(F.col("run_id") == F.lit(run_id))
    row = rows.orderBy(F.col("published_at").desc(), F.col("run_id").desc()).first()
    if row is None:
        of_run = f" of run {run_id}" if run_id else ""
        raise TableError(f"no publication{of_run} at {store.path(PUBLICATIONS)}; run ./spark-submit.sh publish first")
    values = row.asDict(recursive=True)
    values["published_at"] = row["published_at"].astimezone(UTC)  # Spark returns the machine's local time
    return Publication(**{f.name: values[f.name] for f in fields(Publication)})


def _metrics(store: TableStore, run_id: str) -> dict[str, float]:
    """Test metrics as ``ranker.metric``; they belong to the run's model that has not seen the test part."""
    if not store.exists(EVALUATION):
        return {}
    rows = store.read(EVALUATION).where(F.col("run_id") == F.lit(run_id)).collect()
    return {f"{row['ranker']}.{row['metric']}": row["value"] for row in rows}


def _has_rows(store: TableStore, contract: Contract, run_id: str, model_version: str) -> bool:
    own = (F.col("run_id") == F.lit(run_id)) & (F.col("model_version") == F.lit(model_version))
    return store.exists(contract) and not store.read(contract).where(own).isEmpty()


def _versions(store: TableStore, run_id: str, model_version: str) -> dict[str, int]:
    model = store.read(FM_MODEL).where(F.col("model_version") == F.lit(model_version)).first()
    if model is None:
        raise TableError(
            f"run {run_id} cannot be published: no model {model_version}; run ./spark-submit.sh train first"
        )
    trained_on: dict[str, int] = model["input_versions"]
    versions = dict(trained_on)
    for contract in ALL:
        if contract is not PUBLICATIONS and contract.name not in versions and store.exists(contract):
            own = store.version_of_run(contract, run_id)
            if contract is USERS and own is None:
                continue  # of an earlier run: this one has no columns of users
            versions[contract.name] = store.version(contract) if own is None else own
    return versions
