"""Job ``cluster``: groups the items of the published model, and its users when asked, and describes the groups."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.parallel import side_by_side
from fm_spark.ranking.cluster_matching import change_rows, earlier_places, match_clusters
from fm_spark.ranking.clusters import cluster_items, cluster_rows
from fm_spark.ranking.earlier_run import earlier_clusters
from fm_spark.ranking.inputs import RankingInputs, load_inputs
from fm_spark.ranking.profiles import Profile, item_tags, profile_rows, profiles
from fm_spark.ranking.user_clusters import user_cluster_rows
from fm_spark.ranking.user_profiles import liked_by_group, user_profile_rows, user_profiles
from fm_spark.tables.contracts import (
    CLUSTER_CHANGES,
    CLUSTER_PROFILES,
    ITEM_CLUSTERS,
    USER_CLUSTER_PROFILES,
    USER_CLUSTERS,
)
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.cluster")


@dataclass(frozen=True)
class ClusterResult:
    """The clusters found, the silhouette of the items that shaped them, and the Delta version of each table written.

    ``stability`` is that of :class:`~fm_spark.ranking.cluster_matching.Matched`.
    """

    run_id: str
    model_version: str
    profiles: list[Profile]
    silhouette: float
    stability: float | None
    versions: dict[str, int]


def run(spark: SparkSession, config: Config) -> ClusterResult:
    """Writes the clusters of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, PUBLISH)
    run_id, model_version, catalogue = inputs.model.run_id, inputs.model.model_version, inputs.catalogue
    earlier = earlier_clusters(store, run_id) if config.cluster.keep_ids else None
    before = None if earlier is None else earlier_places(catalogue.item_id, earlier)
    clusters = cluster_items(inputs.machine.item_factors, catalogue.count, catalogue.genres, config.cluster, before)
    matched = match_clusters(catalogue.item_id, clusters.cluster, earlier)
    found = profiles(catalogue, item_tags(inputs.items, catalogue), clusters, matched.ids)
    own = {"run_id": run_id, "model_version": model_version}
    versions = side_by_side(
        {
            table.name: partial(store.write, rows.assign(**own), table, run_id)
            for table, rows in (
                (ITEM_CLUSTERS, cluster_rows(catalogue, clusters, matched.ids)),
                (CLUSTER_PROFILES, profile_rows(found, matched)),
                (CLUSTER_CHANGES, change_rows(matched)),
            )
        }
    )
    log.info("%d clusters of %s items, silhouette %.3f", len(found), f"{catalogue.n_items:,}", clusters.silhouette)
    if matched.stability is not None:
        log.info("ids go on from run %s, stability %.3f", matched.matched_run_id, matched.stability)
    if config.cluster.users:
        versions |= _group_users(store, inputs, config)
    return ClusterResult(run_id, model_version, found, clusters.silhouette, matched.stability, versions)


def _group_users(store: TableStore, inputs: RankingInputs, config: Config) -> dict[str, int]:
    run_id, own = inputs.model.run_id, {"run_id": inputs.model.run_id, "model_version": inputs.model.model_version}
    columns = [F.lit(value).alias(name) for name, value in own.items()]
    with user_cluster_rows(inputs, config.cluster) as rows:
        version = store.write(rows.select("*", *columns), USER_CLUSTERS, run_id)
    groups = store.read(USER_CLUSTERS, version).where(F.col("run_id") == F.lit(run_id))
    described = user_profiles(inputs.catalogue, *liked_by_group(inputs.events, groups, inputs.catalogue))
    written = store.write(user_profile_rows(described).assign(**own), USER_CLUSTER_PROFILES, run_id)
    log.info("%d taste groups of %s users", len(described), f"{sum(each.size for each in described):,}")
    return {USER_CLUSTERS.name: version, USER_CLUSTER_PROFILES.name: written}


def main() -> None:
    """Entry point of spark-submit."""
    job_main("cluster", run)


if __name__ == "__main__":
    main()
