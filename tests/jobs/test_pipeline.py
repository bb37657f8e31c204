"""The whole pipeline through the real ./spark-submit.sh, its tables read back without Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable

from fm_spark.tables import contracts

KEYS = ["train.epochs=2", "train.k=8", "cluster.k=4", "recommend.n=10", "audience.items=[318]"]
QUICK = [word for key in KEYS for word in ("--set", key)]


class Made(NamedTuple):
    """A finished pipeline run."""

    root: Path
    out: str
    err: str

    def table(self, name: str) -> pd.DataFrame:
        """The newest version, by deltalake and pandas."""
        return DeltaTable(str(self.root / name)).to_pandas()


@pytest.fixture(scope="module")
def made(submit: Callable, movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("pipeline") / "tables"
    paths = ["--set", f"input.path={movielens}", "--set", f"tables.root={root}"]
    ended = submit("pipeline", *paths, "--run-id", "first", *QUICK)
    assert ended.code == 0, ended.err
    return Made(root, ended.out, ended.err)


def test_every_table_is_there_and_commented(made: Made) -> None:
    for contract in contracts.ALL:
        if contract.name in {"checkpoints", "users", "user_clusters", "user_cluster_profiles"}:
            continue  # only while a training is under way, with input.user_columns, with cluster.users
        table = DeltaTable(str(made.root / contract.name))
        fields = {field.name: field for field in table.schema().fields}
        assert list(fields) == contract.column_names
        assert table.metadata().description == contract.comment
        assert all(fields[c.name].metadata.get("comment") == c.comment for c in contract.columns)
        assert len(table.to_pandas()) > 0


def test_top_n_is_dense_unseen_and_of_the_published_model(made: Made) -> None:
    top, events = made.table("top_n"), made.table("events")
    publication = made.table("publications").iloc[0]
    assert set(top.model_version) == {publication.model_version}
    assert set(top.user_id) == set(events.user_id)
    for user, rows in top.groupby("user_id"):
        rows = rows.sort_values("rank")
        assert list(rows["rank"]) == list(range(1, 11))
        assert list(rows.sort_values(["score", "item_id"], ascending=[False, True]).item_id) == list(rows.item_id)
        assert not set(rows.item_id) & set(events[events.user_id == user].item_id)


def saved_items(made: Made) -> tuple[dict, dict]:
    """Out of nothing but the tables: the vectors by (field, value), and by item its composed vector and bias."""
    model = made.table("fm_model").query("purpose == 'publish'").iloc[0]
    rows = made.table("fm_parameters").query(f"model_version == '{model.model_version}'")
    vector = {(r.field, r.value): np.asarray(r.factors, float) for r in rows.itertuples()}
    bias = {(r.field, r.value): r.bias for r in rows.itertuples()}
    side = {}
    for item in made.table("items").itertuples():
        active = [(("item", str(item.item_id)), 1.0), *((("genre", g), len(item.genres) ** -0.5) for g in item.genres)]
        pairs = sum(
            vector[a] @ vector[b] * x * y for i, (a, x) in enumerate(active) for b, y in active[i + 1 :]
        )  # fmt: skip
        side[item.item_id] = (sum(vector[f] * x for f, x in active), sum(bias[f] * x for f, x in active) + pairs)
    return vector, side


def test_top_n_equals_brute_force_over_the_saved_parameters(made: Made) -> None:
    """Scores with explicit bags, own and genre vectors, pairwise item interactions."""
    model = made.table("fm_model").query("purpose == 'publish'").iloc[0]
    vector, side = saved_items(made)
    events, top = made.table("events"), made.table("top_n")
    for user in list(events.user_id.unique())[:3]:
        history = events[events.user_id == user].sort_values("position", ascending=False)
        query = np.zeros(int(model.k))
        for decay in model.decays:
            values = decay ** np.arange(len(history))
            values /= np.linalg.norm(values)
            for event, value in zip(history.itertuples(), values, strict=True):
                kind = "liked" if event.label > 0 else "not_liked"
                query += value * vector[(f"history_{kind}_{decay:g}", str(event.item_id))]
        seen = set(history.item_id)
        scores = sorted((-(b + s @ query), i) for i, (s, b) in side.items() if i not in seen)[:10]
        mine = top[top.user_id == user].sort_values("rank")
        np.testing.assert_allclose(mine.score, [-s for s, _ in scores], atol=1e-4)
        assert len(set(mine.item_id) & {i for _, i in scores}) >= 9  # float32 may swap near ties at the cut


def test_similar_items_equal_brute_force_over_the_saved_parameters(made: Made) -> None:
    _, side = saved_items(made)
    count = made.table("items").set_index("item_id")["count"]
    similar = made.table("similar_items")
    assert set(similar.item_id) == set(count.index)
    known = [item for item in count.index if count[item] >= 5]
    assert set(similar.similar_item_id) <= set(known)
    unit = {item: side[item][0] / np.linalg.norm(side[item][0]) for item in known}
    for item in known[:3]:
        best = sorted((-float(unit[item] @ unit[other]), other) for other in known if other != item)[:20]
        mine = similar[similar.item_id == item].sort_values("rank")
        np.testing.assert_allclose(mine.score, [-score for score, _ in best], atol=1e-5)
        assert len(set(mine.similar_item_id) & {other for _, other in best}) >= 19  # a near tie may end the list


def test_the_audience_that_was_asked_for_is_there(made: Made) -> None:
    audience, events = made.table("item_audience"), made.table("events")
    users = set(events.user_id) - set(events[events.item_id == 318].user_id)
    assert set(audience.user_id) == users
    assert (audience.score < 0).all()
    assert list(audience.sort_values("rank").score) == sorted(audience.score, reverse=True)


def test_clusters_cover_the_catalogue(made: Made) -> None:
    clusters, profiles, items = made.table("item_clusters"), made.table("cluster_profiles"), made.table("items")
    assert sorted(clusters.item_id) == sorted(items.item_id)
    assert clusters.groupby("cluster_id").size().to_dict() == dict(
        zip(profiles.cluster_id, profiles["size"], strict=True)
    )
    assert (clusters.groupby("cluster_id").is_medoid.sum() == 1).all()
    assert (profiles.exemplars.map(len) == 5).all()


def test_a_publication_names_versions_that_belong_together(made: Made) -> None:
    publication = made.table("publications").iloc[0]
    versions = dict(publication.tables)
    assert {"top_n", "item_clusters", "fm_parameters", "events", "vocabulary"} <= set(versions)
    top = DeltaTable(str(made.root / "top_n"), version=versions["top_n"]).to_pandas()
    assert set(top.model_version) == {publication.model_version}
    vocabulary = DeltaTable(str(made.root / "vocabulary"), version=versions["vocabulary"]).to_pandas()
    parameters = made.table("fm_parameters")
    joined = parameters.merge(vocabulary, on=["field", "value", "feature"])
    assert len(joined) == len(parameters)


def test_the_summary_shows_the_run(made: Made) -> None:
    for words in (
        "What came in",
        "NDCG@10",
        "popularity",
        "Last liked",
        "Clusters",
        "Similar items",
        "Tables",
        "Seconds by step",
    ):
        assert words in made.out
    assert "Traceback" not in made.err
    assert "Exception" not in made.err


def test_a_job_alone_continues_the_run(made: Made, submit: Callable) -> None:
    before = {name: DeltaTable(str(made.root / name)).version() for name in ("top_n", "item_clusters")}
    old = made.table("top_n").sort_values(["user_id", "rank"], ignore_index=True)
    ended = submit("recommend", "--set", f"tables.root={made.root}", "--set", "recommend.n=10")
    assert ended.code == 0, ended.err
    assert DeltaTable(str(made.root / "top_n")).version() > before["top_n"]
    pd.testing.assert_frame_equal(made.table("top_n").sort_values(["user_id", "rank"], ignore_index=True), old)
    assert DeltaTable(str(made.root / "item_clusters")).version() == before["item_clusters"]


@pytest.mark.parametrize(("job", "first"), [("train", "events"), ("recommend", "train")])
def test_a_job_before_the_one_it_needs_is_one_line(submit: Callable, tmp_path: Path, job: str, first: str) -> None:
    ended = submit(job, "--set", f"tables.root={tmp_path / 'none'}")
    assert ended.code == 2
    assert f"./spark-submit.sh {first}" in ended.err
    assert len(ended.err.strip().splitlines()) == 1
