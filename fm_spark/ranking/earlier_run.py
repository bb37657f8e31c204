"""The clusters of the last publication, whose ids a new run goes on with."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from fm_spark.errors import TableError
from fm_spark.ranking.cluster_matching import Earlier
from fm_spark.tables.contracts import CLUSTER_CHANGES, ITEM_CLUSTERS, Contract
from fm_spark.tables.publications import publications
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.ranking.earlier_run")

_CURE = "number the clusters anew with --set cluster.keep_ids=false"


def earlier_clusters(store: TableStore, run_id: str) -> Earlier | None:
    """The clusters that a run's ids are matched to: those of the last publication of another run.

    A run that is published stays with the one that it was matched to before, so that its clusters, made again after
    later runs, have the same ids.

    Returns:
        None when nothing was published before.

    Raises:
        TableError: what the publication names is gone, or is of another model than it says.
    """
    publication = _last_publication(store, run_id)
    if publication is None:
        return None
    items = _rows(store, ITEM_CLUSTERS, publication, "item_id", "cluster_id", "model_version")
    models = sorted(set(items["model_version"]))
    if models != [publication.model_version]:
        found = f"those of model {', '.join(models)}" if models else "no rows of it"
        raise TableError(
            f"tables of different runs are mixed: run {publication.run_id} was published with model "
            f"{publication.model_version}, and {ITEM_CLUSTERS.name} has {found}; run ./spark-submit.sh cluster and "
            f"then publish with --run-id {publication.run_id}, or {_CURE}"
        )
    next_id = int(items["cluster_id"].max()) + 1
    if CLUSTER_CHANGES.name in publication.tables:
        next_id = max([next_id, *_rows(store, CLUSTER_CHANGES, publication, "next_id")["next_id"]])
    log.info("cluster ids go on from run %s, publication %d", publication.run_id, publication.publication)
    return Earlier(
        publication.run_id, items["item_id"].to_numpy(), items["cluster_id"].to_numpy(dtype=np.int32), next_id
    )


def _last_publication(store: TableStore, run_id: str) -> Publication | None:
    """That of another run; of a run that is published itself the one that it has been matched to."""
    there = publications(store)
    own = next((number for number, one in enumerate(there) if one.run_id == run_id), None)
    if own is None:
        return there[-1] if there else None
    matched_to = _matched_run(store, run_id)
    if matched_to is None:  # clusters of an earlier version of fm_spark: nothing says what they were matched to
        return there[own - 1] if own else None
    if not matched_to:
        return None
    found = [one for one in there if one.run_id == matched_to]
    if not found:
        raise TableError(
            f"the clusters of run {run_id} have the ids of run {matched_to}, which is no longer published; {_CURE}"
        )
    return found[-1]


def _matched_run(store: TableStore, run_id: str) -> str | None:
    """The run that a run's clusters were matched to, "" for none; None where nothing is recorded."""
    if not store.exists(CLUSTER_CHANGES):
        return None
    row = store.read(CLUSTER_CHANGES).where(F.col("run_id") == F.lit(run_id)).select("matched_run_id").first()
    return None if row is None else row["matched_run_id"] or ""


def _rows(store: TableStore, contract: Contract, publication: Publication, *columns: str) -> pd.DataFrame:
    """The publication's rows; those of the newest version, which keeps every run's, where the named one is gone."""
    of_run = F.col("run_id") == F.lit(publication.run_id)
    version = publication.tables[contract.name]
    try:
        return store.read(contract, version, columns).where(of_run).toPandas()
    except (TableError, PySparkException, Py4JError) as error:
        log.warning("version %d of %s cannot be read (%s), the newest is", version, contract.name, _first_line(error))
        return store.read(contract, columns=columns).where(of_run).toPandas()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
