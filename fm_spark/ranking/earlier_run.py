"""The clusters of the last publication, whose ids a new run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from fm_spark.errors import TableError
from fm_spark.ranking.cluster_matching import BORN, Earlier
from fm_spark.tables.contracts import CLUSTER_CHANGES, ITEM_CLUSTERS
from fm_spark.tables.publications import publications
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.ranking.earlier_run")

_CURE = "number the clusters anew with --set cluster.keep_ids=false"


class _Choice(NamedTuple):
    """The publication that ids go on from, and the first id that is free for a new cluster."""

    publication: Publication
    next_id: int


def earlier_clusters(store: TableStore, run_id: str) -> Earlier | None:
    """The clusters that a run's ids are matched to: those of the last publication of another run.

    A run that is published stays with the one that it was matched to before, so that its clusters, made again after
    later runs, have the same ids.

    Returns:
        None when nothing was published before.

    Raises:
        TableError: what the publication names is gone, or is of another model than it says.
    """
    choice = _choice(store, run_id)
    if choice is None:
        return None
    publication = choice.publication
    items = _rows(store, publication)
    models = sorted(set(items["model_version"]))
    if models != [publication.model_version]:
        found = f"those of model {', '.join(models)}" if models else "no rows of it"
        raise TableError(
            f"tables of different runs are mixed: run {publication.run_id} was published with model "
            f"{publication.model_version}, and {ITEM_CLUSTERS.name} has {found}; run ./spark-submit.sh cluster and "
            f"then publish with --run-id {publication.run_id}, or {_CURE}"
        )
    log.info("cluster ids go on from run %s, publication %d", publication.run_id, publication.publication)
    cluster_id = items["cluster_id"].to_numpy(dtype=np.int32)
    return Earlier(
        publication.run_id, items["item_id"].to_numpy(), cluster_id, max(choice.next_id, int(cluster_id.max()) + 1)
    )


def _choice(store: TableStore, run_id: str) -> _Choice | None:
    there = publications(store)
    own = next((number for number, one in enumerate(there) if one.run_id == run_id), None)
    recorded = _changes(store, [run_id]) if own is not None else None
    if recorded is None or recorded.empty:
        # not published yet; or clusters of an earlier version of fm_spark, which did not say what they were matched to
        before = there[:own]
        if not before:
            return None
        # of all of them, also of those that were rolled back: their ids were out
        given = _changes(store, [one.run_id for one in before])
        return _Choice(before[-1], 0 if given is None or given.empty else int(given["next_id"].max()))
    matched_to = recorded["matched_run_id"].iloc[0]
    if pd.isna(matched_to):
        return None
    found = [one for one in there if one.run_id == matched_to]
    if not found:
        raise TableError(
            f"the clusters of run {run_id} have the ids of run {matched_to}, which is no longer published; {_CURE}"
        )
    return _Choice(found[-1], int(recorded["next_id"].iloc[0]) - int((recorded["status"] == BORN).sum()))


def _changes(store: TableStore, run_ids: Sequence[str]) -> pd.DataFrame | None:
    """What the newest version of ``cluster_changes`` records of these runs; None without the table."""
    if not store.exists(CLUSTER_CHANGES):
        return None
    columns = ("run_id", "status", "matched_run_id", "next_id")
    rows: pd.DataFrame = store.rows(CLUSTER_CHANGES, columns=columns, where={"run_id": list(run_ids)}).to_pandas()
    return rows


def _rows(store: TableStore, publication: Publication) -> pd.DataFrame:
    """The publication's clusters; those of the newest version, which keeps every run's, where the named one is gone."""
    of_run = {"run_id": publication.run_id}
    version, columns = publication.tables[ITEM_CLUSTERS.name], ("item_id", "cluster_id", "model_version")
    try:
        rows: pd.DataFrame = store.rows(ITEM_CLUSTERS, version, columns, of_run).to_pandas()
    except (TableError, PySparkException, Py4JError) as error:
        log.warning(
            "version %d of %s cannot be read (%s), the newest is", version, ITEM_CLUSTERS.name, _first_line(error)
        )
        rows = store.rows(ITEM_CLUSTERS, None, columns, of_run).to_pandas()
    return rows


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
