from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from sklearn.metrics import adjusted_rand_score
from taste_run import GREEDY, ITEMS, MODEL, N_USERS, RUN, UNTESTED

from fm_spark.config import Config
from fm_spark.errors import TableError
from fm_spark.ranking.earlier_run import earlier_clusters
from fm_spark.ranking.user_clusters import sampled_users
from fm_spark.tables import contracts as C
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore
from jobs import cluster

SECOND = "second"
TO_ODD = ITEMS[0]  # likes change: in the second run this item is one of the odd ones


class Line(NamedTuple):
    """Two runs in one root, the first one published before the second one was clustered; then both are, again."""

    config: Config
    store: TableStore
    first: cluster.ClusterResult
    second: cluster.ClusterResult
    again: dict[str, cluster.ClusterResult]

    def table(self, name: str, version: int | None = None) -> pd.DataFrame:
        return DeltaTable(f"{self.config.tables.root}/{name}", version=version).to_pandas()

    def of(self, name: str, result: cluster.ClusterResult) -> pd.DataFrame:
        rows = self.table(name, result.versions[name])
        return rows[rows["run_id"] == result.run_id].reset_index(drop=True)


@pytest.fixture(scope="module")
def line(spark: SparkSession, taste: Config, tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("line") / "tables"
    for contract in (C.EVENTS, C.ITEMS, C.FM_PARAMETERS, C.FM_MODEL):
        shutil.copytree(Path(taste.tables.root) / contract.name, root / contract.name)
    store = TableStore(spark, str(root))
    settings = replace(taste.cluster, k=2, min_count=1, user_k=2, users=True)
    config = replace(taste, tables=replace(taste.tables, root=str(root)), cluster=settings)
    first = cluster.run(spark, config)
    publish_clusters(store, first, 1)
    retrain(store, config)
    second_config = replace(
        config, run=replace(config.run, id=SECOND), cluster=replace(config.cluster, users=False)
    )  # fmt: skip
    second = cluster.run(spark, second_config)
    publish_clusters(store, second, 2)
    first_again = replace(config, cluster=second_config.cluster)
    again = {RUN: cluster.run(spark, first_again), SECOND: cluster.run(spark, second_config)}
    return Line(config, store, first, second, again)


def publish_clusters(store: TableStore, result: cluster.ClusterResult, number: int, model_version: str = "") -> None:
    """A publication of the clusters alone."""
    model = model_version or result.model_version
    row = Publication(number, result.run_id, model, datetime.now(UTC), result.versions, {})
    store.write(pd.DataFrame([asdict(row)]), C.PUBLICATIONS, result.run_id, only={"publication": number})


def retrain(store: TableStore, config: Config) -> None:
    """A second model, by which one item has changed sides."""
    parameters = DeltaTable(store.path(C.FM_PARAMETERS)).to_pandas().query(f"model_version == '{MODEL}'")
    changed = (parameters["field"] == "item") & (parameters["value"] == str(TO_ODD))
    parameters.loc[changed, "factors"] = parameters.loc[changed, "factors"].map(lambda vector: vector[::-1])
    model = DeltaTable(store.path(C.FM_MODEL)).to_pandas().query(f"model_version == '{MODEL}'")
    maps = ("hyperparameters", "metrics", "input_versions", "library_versions")
    own = {"run_id": SECOND, "model_version": f"fm-{SECOND}"}
    store.write(parameters.assign(**own), C.FM_PARAMETERS, SECOND)
    store.write(model.assign(**own, **{name: model[name].map(dict) for name in maps}), C.FM_MODEL, SECOND)


def test_the_job_writes_clusters_and_profiles(line: Line) -> None:
    table = line.of("item_clusters", line.first)
    assert sorted(table["item_id"]) == ITEMS
    # equal sizes: the cluster of the smallest id comes first
    assert (table["cluster_id"] == table["item_id"] % 2).all()
    assert table[table["is_medoid"]]["item_id"].tolist() == ITEMS[:2]  # all at the centre: the first of equals
    assert table["supported"].all()
    profiles = line.of("cluster_profiles", line.first).set_index("cluster_id")
    assert profiles["size"].to_dict() == {0: 20, 1: 20}
    assert [(g["name"], g["share"], g["lift"]) for g in profiles.loc[0, "top_genres"]] == [("Even", 1.0, 2.0)]
    assert [g["name"] for g in profiles.loc[1, "top_tags"]] == ["quiet"]
    assert profiles.loc[1, "label"].startswith("Odd: Film 1")
    assert all(len(e) == 5 for e in profiles["exemplars"])
    assert profiles["cohesion"].to_dict() == {0: pytest.approx(1.0), 1: pytest.approx(1.0)}
    assert [p.label for p in line.first.profiles] == profiles.sort_index()["label"].tolist()


def test_the_first_run_has_new_ids_and_no_stability(line: Line) -> None:
    changes = line.of("cluster_changes", line.first)
    assert changes["status"].tolist() == ["born", "born"]
    assert changes[["stability", "matched_run_id", "counterpart_id"]].isna().all(axis=None)
    assert line.of("cluster_profiles", line.first)["stability"].isna().all()


def test_the_second_run_keeps_the_ids_of_the_last_publication(line: Line) -> None:
    before, now = (line.of("item_clusters", result).set_index("item_id") for result in (line.first, line.second))
    expected = pd.Series({item: 1 if item == TO_ODD else item % 2 for item in ITEMS})
    # by size alone the 21 odd items would be cluster 0
    assert now["cluster_id"].sort_index().tolist() == expected.tolist()
    stability = adjusted_rand_score(before["cluster_id"].sort_index(), now["cluster_id"].sort_index())
    assert line.second.stability == pytest.approx(stability)
    profiles = line.of("cluster_profiles", line.second)
    assert profiles["stability"].tolist() == pytest.approx([stability, stability])
    assert profiles["status"].tolist() == ["kept", "kept"]
    changes = line.of("cluster_changes", line.second).sort_values("cluster_id")
    columns = ["cluster_id", "status", "size", "size_before", "counterpart_id", "shared_items", "next_id"]
    assert changes[columns].to_numpy().tolist() == [[0, "kept", 19, 20, 0, 19, 2], [1, "kept", 21, 20, 1, 20, 2]]
    assert set(changes["matched_run_id"]) == {RUN}


@pytest.mark.parametrize("run_id", [RUN, SECOND])
def test_a_run_made_again_after_later_ones_has_the_same_tables(line: Line, run_id: str) -> None:
    made, again = line.first if run_id == RUN else line.second, line.again[run_id]
    for name in ("item_clusters", "cluster_profiles", "cluster_changes"):
        assert again.versions[name] > made.versions[name]
        pd.testing.assert_frame_equal(line.of(name, again), line.of(name, made))


@pytest.fixture
def copied(spark: SparkSession, line: Line, tmp_path: Path) -> TableStore:
    """What a third run reads of the first two."""
    for contract in (C.PUBLICATIONS, C.ITEM_CLUSTERS, C.CLUSTER_CHANGES):
        shutil.copytree(line.store.path(contract), tmp_path / contract.name)
    return TableStore(spark, str(tmp_path))


def test_a_publication_whose_clusters_are_of_another_model_is_one_message(line: Line, copied: TableStore) -> None:
    publish_clusters(copied, line.again[SECOND], 3, "fm-of-another")
    with pytest.raises(TableError, match=r"mixed.* second .*fm-of-another.* fm-second.*publish.*keep_ids=false"):
        earlier_clusters(copied, "third")


def test_a_version_that_is_gone_is_read_from_the_newest_one(line: Line, copied: TableStore) -> None:
    gone = replace(line.second, versions=dict.fromkeys(line.second.versions, 999))
    publish_clusters(copied, gone, 3)
    found = earlier_clusters(copied, "third")
    assert found is not None
    assert (found.run_id, found.next_id, len(found.item_id)) == (SECOND, 2, len(ITEMS))


def test_ids_of_a_publication_that_was_rolled_back_are_not_given_again(line: Line, copied: TableStore) -> None:
    changes = line.of("cluster_changes", line.second)
    copied.write(changes.assign(next_id=9, status=["kept", "born"]), C.CLUSTER_CHANGES, SECOND)
    publish_clusters(copied, line.first, 3)  # as a rollback does
    found = earlier_clusters(copied, "third")
    assert found is not None
    assert (found.run_id, found.next_id) == (RUN, 9)
    again = earlier_clusters(copied, SECOND)
    assert again is not None
    assert (again.run_id, again.next_id) == (RUN, 8)  # one cluster was born, before it the next one was 8


def test_users_of_one_taste_are_one_group(line: Line) -> None:
    groups = line.of("user_clusters", line.first).set_index("user_id")
    # the odd ones are more: the last item of those two users is odd
    assert groups["cluster_id"].to_dict() == {
        **{user: 1 - user % 2 for user in range(N_USERS)}, GREEDY: 0, UNTESTED: 0
    }  # fmt: skip
    assert groups["distance"].between(0, 2).all()
    profiles = line.of("user_cluster_profiles", line.first).set_index("cluster_id")
    assert profiles["size"].to_dict() == {0: 8, 1: 6}
    likes = {0: 6 * 6 + 20 + 1, 1: 6 * 6}  # of items of the group's own taste, by its users
    all_likes = {0: 12 * 6 + 40 + 2, 1: 12 * 6 + 40 + 2}
    for group, genre in ((0, "Odd"), (1, "Even")):
        (found,) = profiles.loc[group, "top_genres"]
        liked = {0: 6 * 6 + 40 + 2, 1: 6 * 6}[group]
        share, of_all = likes[group] / liked, (6 * 6 + 20 + 1) / all_likes[group]
        assert (found["name"], found["share"]) == (genre, pytest.approx(share))
        assert found["lift"] == pytest.approx(share / of_all)
        assert profiles.loc[group, "label"].startswith(genre)
        assert all(int(e["item_id"]) % 2 == 1 - group for e in profiles.loc[group, "exemplars"])


def test_the_sample_of_users_does_not_hang_on_partitions(line: Line) -> None:
    events = line.store.read(C.EVENTS)
    found = [sampled_users(frame, 5, 1).toPandas()["user_id"].tolist() for frame in (events, events.repartition(7))]
    assert found[0] == found[1]
    assert len(set(found[0])) == 5
    assert np.isin(found[0], [*range(N_USERS), GREEDY, UNTESTED]).all()
