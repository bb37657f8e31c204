"""Job ``cluster``: groups the items of the published model and writes item_clusters and cluster_profiles."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.parallel import side_by_side
from fm_spark.ranking.clusters import cluster_items, cluster_rows
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.profiles import Profile, item_tags, profile_rows, profiles
from fm_spark.tables.contracts import CLUSTER_PROFILES, ITEM_CLUSTERS
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.cluster")


@dataclass(frozen=True)
class ClusterResult:
    """The clusters found, the silhouette of the items that shaped them, and the Delta version of each table written."""

    run_id: str
    model_version: str
    profiles: list[Profile]
    silhouette: float
    versions: dict[str, int]


def run(spark: SparkSession, config: Config) -> ClusterResult:
    """Writes the clusters of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, PUBLISH)
    run_id, model_version, catalogue = inputs.model.run_id, inputs.model.model_version, inputs.catalogue
    clusters = cluster_items(spark, inputs.machine.item_factors, catalogue.count, catalogue.genres, config.cluster)
    found = profiles(catalogue, item_tags(inputs.items, catalogue), clusters)
    own = {"run_id": run_id, "model_version": model_version}
    versions = side_by_side(
        {
            table.name: partial(store.write, rows.assign(**own), table, run_id)
            for table, rows in (
                (ITEM_CLUSTERS, cluster_rows(catalogue, clusters)),
                (CLUSTER_PROFILES, profile_rows(found)),
            )
        }
    )
    log.info("%d clusters of %s items, silhouette %.3f", len(found), f"{catalogue.n_items:,}", clusters.silhouette)
    return ClusterResult(run_id, model_version, found, clusters.silhouette, versions)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("cluster", run)


if __name__ == "__main__":
    main()
