"""The report reads what was published, at the published versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from small_run import START, TITLES, all_rows, copy_run, frame

from fm_spark.config import Config
from fm_spark.report import show_run
from fm_spark.report.collect import collect_run
from fm_spark.tables import contracts as C
from fm_spark.tables.publications import publish
from fm_spark.tables.store import TableStore


@pytest.fixture(scope="module")
def store(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """One published run, then rows of a later run that is not published."""
    store = TableStore(spark, str(tmp_path_factory.mktemp("report")))
    copy_run(store)
    publish(store, "r1", "fm-r1")
    later = all_rows("r2")
    store.write(frame(spark, C.EVENTS, later["events"][:1]), C.EVENTS, "r2")
    store.write(frame(spark, C.TOP_N, later["top_n"][:1]), C.TOP_N, "r2")
    return store


def test_facts_are_those_of_the_published_versions(store: TableStore, config: Config) -> None:
    facts = collect_run(store, "", config.report, {"events": 1.0})
    assert (facts.run_id, facts.model_version, facts.seconds) == ("r1", "fm-r1", {"events": 1.0})
    data = facts.data
    assert (data.users, data.items, data.catalogue, data.events, data.positives, data.test_events) == (3, 5, 5, 7, 7, 1)
    assert (data.first, data.last) == (START, START.replace(day=4))
    assert [(check.check, check.rows) for check in data.quality] == [("exact_duplicates", 2), ("missing", 0)]
    assert facts.metrics.values["ndcg_at_10"] == {"fm": 0.5, "popularity": 0.25}
    assert (facts.training.epochs, facts.training.validation) == ({"evaluation": 3, "publish": 3}, {"ndcg_at_10": 0.3})
    curves = {curve.stage: curve for curve in facts.training.curves}
    assert curves["evaluation"].loss == [3.0, 1.5, 1.0]
    assert curves["evaluation"].ndcg_at_10 == pytest.approx([0.1, 0.2, 0.3])
    assert not curves["publish"].validated
    sizes = {table.name: (table.rows, table.version) for table in facts.tables}
    assert (sizes["events"], sizes["top_n"], sizes["fm_model"]) == ((7, 1), (6, 1), (2, 1))
    assert list(sizes) == [contract.name for contract in C.ALL if contract is not C.PUBLICATIONS]


def test_users_are_spread_by_history_and_shown_with_what_they_liked_last(store: TableStore, config: Config) -> None:
    users = collect_run(store, "r1", config.report).users
    assert [(user.user_id, user.events) for user in users] == [("12", 1), ("11", 2), ("10", 4)]
    longest = users[-1]
    assert [item.title for item in longest.liked] == [TITLES[item] for item in (4, 3, 2, 1)]
    assert longest.liked[0].time == START.replace(day=4)
    assert [(place.rank, place.title, place.score) for place in longest.top] == [
        (1, TITLES[4], 2.0),
        (2, TITLES[5], 1.0),
    ]


def test_more_users_than_there_are_and_none_at_all(store: TableStore, config: Config) -> None:
    assert len(collect_run(store, "r1", replace(config.report, users=9)).users) == 3
    nobody = collect_run(store, "r1", replace(config.report, users=0, clusters=0))
    assert (nobody.users, nobody.clusters, len(nobody.cluster_labels)) == ([], [], 2)


def test_clusters_and_items(store: TableStore, config: Config) -> None:
    facts = collect_run(store, "r1", config.report)
    assert [(cluster.cluster_id, cluster.size) for cluster in facts.clusters] == [(1, 3), (0, 2)]
    assert facts.clusters[0].exemplars == [TITLES[1]]
    assert (facts.items.count.sum(), sorted(facts.items.listed)) == (7, [0, 0, 0, 3, 3])
    by_cluster = dict(zip(map(tuple, facts.items.map_vectors.tolist()), facts.items.map_clusters, strict=True))
    assert by_cluster[(4.0, 1.0, 0.0)] == 0
    assert len(by_cluster) == 5


def test_well_known_items_are_shown_with_their_nearest_ones(store: TableStore, config: Config) -> None:
    facts = collect_run(store, "r1", replace(config.report, similar=2))
    # all are dramas: the two with most events, the smaller id first
    assert [item.title for item in facts.similar] == [TITLES[1], TITLES[3]]
    assert [near.title for near in facts.similar[1].neighbours] == [TITLES[item] for item in (1, 2, 4, 5)]
    assert facts.similar[0].neighbours[0].score == 0.9
    assert facts.genre_shares == {"model": 1.0, "co_occurrence": 0.75, "random": 0.5}


def test_item_vectors_on_the_map_have_their_genres_in_them(spark: SparkSession, tmp_path: Path, config: Config) -> None:
    store = TableStore(spark, str(tmp_path))
    copy_run(store)
    rows = all_rows("r1")
    genre = {**rows["fm_parameters"][0], "field": "genre", "value": "Drama", "feature": 99, "factors": [0.0, 0.0, 10.0]}
    store.write(frame(spark, C.FM_PARAMETERS, [*rows["fm_parameters"], genre]), C.FM_PARAMETERS, "r1")
    publish(store, "r1", "fm-r1")
    vectors = collect_run(store, "r1", config.report).items.map_vectors
    np.testing.assert_array_equal(np.sort(vectors[:, 2]), [10.0, 10.0, 11.0, 11.0, 11.0])


def test_show_run_prints_and_leaves_a_page(
    store: TableStore, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    path = show_run(store, "r1", config.report, {"events": 1.0})
    text = capsys.readouterr().out
    assert "Run r1" in text
    assert TITLES[1] in text
    assert path == Path(store.root) / "reports" / "r1.html"
    assert "&lt;b&gt;Bold&lt;/b&gt;" in path.read_text(encoding="utf-8")
    # the folder of the reports is not in the way of tables
    assert store.version(C.PUBLICATIONS) == 1
