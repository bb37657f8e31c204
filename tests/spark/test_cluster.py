from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from taste_run import ITEMS

from fm_spark.config import ClusterConfig, Config, load_config
from fm_spark.errors import ConfigError
from fm_spark.ranking.clusters import cluster_items
from jobs import cluster


def planted(n_clusters: int, n_items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    of = np.sort(rng.integers(0, n_clusters, n_items))
    directions = np.eye(n_clusters, 8) * 3
    return of, (directions[of] + rng.normal(0, 0.2, (n_items, 8))).astype(np.float32)


def settings(**changes: object) -> ClusterConfig:
    return replace(load_config().cluster, **changes)  # type: ignore[arg-type]


def test_silhouette_finds_the_planted_clusters_and_rare_items_join_them(spark: SparkSession) -> None:
    of, vectors = planted(4, 200)
    count = np.where(np.arange(200) % 3 == 0, 1, 9)
    found = cluster_items(spark, vectors, count, [[]] * 200, settings(k_candidates=[2, 3, 4, 6]))
    assert len(found.centres) == 4
    assert len({(a, b) for a, b in zip(of, found.cluster, strict=True)}) == 4
    sizes = np.bincount(found.cluster)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert np.bincount(found.cluster[found.medoid]).tolist() == [1, 1, 1, 1]
    for cluster_id in range(4):
        members = np.flatnonzero(found.cluster == cluster_id)
        assert found.medoid[members[found.distance[members].argmin()]]


def test_same_input_gives_the_same_clusters_on_any_parallelism(spark: SparkSession) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    config = settings(k="auto", k_candidates=[5, 9])
    first = cluster_items(spark, vectors, np.full(300, 9), [[]] * 300, config)
    key = "spark.sql.shuffle.partitions"
    before = spark.conf.get(key)
    spark.conf.set(key, "7")
    try:
        second = cluster_items(spark, vectors, np.full(300, 9), [[]] * 300, config)
    finally:
        spark.conf.set(key, before)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("changes", "named"), [({"k": 9}, "cluster.k = 9"), ({"k_candidates": [9]}, r"\[9\]")])
def test_more_clusters_than_items_is_an_error(spark: SparkSession, changes: dict[str, object], named: str) -> None:
    count = np.array([9, 9, 9, 9, 1, 1])
    with pytest.raises(ConfigError, match=rf"{named} .*only 4 different items"):
        cluster_items(spark, np.eye(6, dtype=np.float32), count, [[]] * 6, settings(**changes))


def test_the_job_writes_clusters_and_profiles(spark: SparkSession, taste: Config) -> None:
    config = replace(taste, cluster=settings(k=2, min_count=1))
    result = cluster.run(spark, config)
    table = DeltaTable(f"{config.tables.root}/item_clusters").to_pandas()
    assert sorted(table["item_id"]) == ITEMS
    assert (
        table["cluster_id"] == table["item_id"] % 2
    ).all()  # equal sizes: the cluster of the smallest id comes first
    assert table[table["is_medoid"]]["item_id"].tolist() == ITEMS[:2]  # all at the centre: the first of equals
    profiles = DeltaTable(f"{config.tables.root}/cluster_profiles").to_pandas().set_index("cluster_id")
    assert profiles["size"].to_dict() == {0: 20, 1: 20}
    assert [(g["name"], g["share"], g["lift"]) for g in profiles.loc[0, "top_genres"]] == [("Even", 1.0, 2.0)]
    assert [g["name"] for g in profiles.loc[1, "top_tags"]] == ["quiet"]
    assert profiles.loc[1, "label"].startswith("Odd: Film 1")
    assert all(len(e) == 5 for e in profiles["exemplars"])
    assert [p.label for p in result.profiles] == profiles.sort_index()["label"].tolist()
