from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_run import frame
from taste_run import (
    GREEDY,
    ITEMS,
    MODEL,
    N_ITEMS,
    RUN,
    event_rows,
    expected_ranking,
    histories,
    item_rows,
    with_recommend,
    with_text_ids,
)

from fm_spark.config import Config
from fm_spark.core.machine import Machine
from fm_spark.errors import ConfigError, DivergenceError, TableError
from fm_spark.events.catalogue import load_catalogue
from fm_spark.events.histories import SparkHistories
from fm_spark.ranking import inputs
from fm_spark.ranking.filters import Rule
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.list_rules import ListRule
from fm_spark.ranking.served import Served, served
from fm_spark.ranking.top_n import top_n_rows
from fm_spark.tables import contracts as C
from fm_spark.tables.store import TableStore
from fm_spark.training.loading import load_machine
from jobs import recommend


def default_rule(n: int, allowed: npt.NDArray[np.bool_]) -> ListRule:
    return ListRule("default", n, True, Rule(None, {}, len(allowed)), allowed)


def lists(config: Config, name: str = "default") -> dict[int, list[int]]:
    rows = DeltaTable(f"{config.tables.root}/top_n").to_pandas().sort_values(["user_id", "rank"])
    rows = rows[rows["list_name"] == name]
    assert (rows.groupby("user_id")["rank"].apply(list).map(lambda r: r == list(range(1, len(r) + 1)))).all()
    return {int(user): group["item_id"].tolist() for user, group in rows.groupby("user_id")}


def test_every_user_gets_the_unseen_items_of_his_taste_in_order(spark: SparkSession, taste: Config) -> None:
    result = recommend.run(spark, taste)
    wanted = {u: expected_ranking(h, hidden=h)[:10] for u, h in histories().items() if u != GREEDY}
    assert lists(taste) == wanted
    assert (result.run_id, result.model_version, result.users) == (RUN, MODEL, 13)
    assert result.rows == {"default": 130}
    table = DeltaTable(f"{taste.tables.root}/top_n").to_pandas()
    assert (table["title"] == "Film " + table["item_id"].astype(str)).all()
    assert set(table["source"]) == {"model"}
    again = recommend.run(spark, taste)
    assert again.rows == result.rows
    second = DeltaTable(f"{taste.tables.root}/top_n").to_pandas()
    assert second.equals(table)


def test_lists_on_other_file_systems_are_the_same(
    spark: SparkSession, taste: Config, elsewhere: Callable[[], None]
) -> None:
    result = recommend.run(spark, taste)
    made = lists(taste)
    elsewhere()
    again = recommend.run(spark, taste)
    assert (again.rows, again.users, lists(taste)) == (result.rows, result.users, made)


def test_seen_items_may_be_recommended_and_short_lists_end_with_the_catalogue(
    spark: SparkSession, taste: Config
) -> None:
    recommend.run(spark, with_recommend(taste, n=50, exclude_seen=False))
    # the greedy user likes both tastes: his last item is odd and counts most, the rest follows the scores
    wanted = {u: expected_ranking(h, hidden=[]) for u, h in histories().items() if u != GREEDY}
    made = lists(taste)
    assert {u: made[u] for u in wanted} == wanted
    assert sorted(made[GREEDY]) == ITEMS


def test_string_ids_and_allowed_items(spark: SparkSession, taste: Config) -> None:
    read = load_inputs(TableStore(spark, taste.tables.root), taste, "publish")
    events = read.events.withColumn("user_id", F.concat(F.lit("u"), F.col("user_id").cast("string")))
    catalogue = load_catalogue(with_text_ids(read.items))
    allowed = np.arange(len(ITEMS)) >= 30
    users = Served(SparkHistories(events), np.append(catalogue.feature_to_item, np.int32(-1)), {}, [])
    with top_n_rows(users, read.machine, catalogue, [default_rule(3, allowed)]) as rows:
        found = {(row["user_id"], row["rank"]): row["item_id"] for row in rows.frame().collect()}
    history = histories()[4]
    wanted = [item for item in expected_ranking(history, hidden=history) if item >= 130][:3]
    assert [found["u4", rank] for rank in (1, 2, 3)] == [f"i{item}" for item in wanted]


def test_named_lists_have_filters_of_items_and_of_the_users_own_history(spark: SparkSession, taste: Config) -> None:
    filters = {
        "odd": "genres contains 'Odd'",
        "again": {"filter": "seen AND count >= 2", "n": 3},
        "fresh": {"filter": "item_id in (101, 103, 104) OR seen_count > 30", "unseen_only": False, "n": 50},
        "nothing": "genres contains 'Oddity'",
    }
    result = recommend.run(spark, with_recommend(taste, lists=filters, n=4))
    assert result.rows["nothing"] == 0
    count = Counter(item for items in histories().values() for item in items)
    for user, known in histories().items():
        ranked = expected_ranking(known, hidden=[])
        odd = [item for item in ranked if item % 2 and item not in known][:4]
        again = [item for item in ranked if item in known and count[item] >= 2][:3]
        if user != GREEDY:  # the order of his list is that of the scores, of both tastes
            assert lists(taste, "odd")[user] == odd
            assert lists(taste, "again")[user] == again
            assert lists(taste, "fresh")[user] == [item for item in ranked if item in (101, 103, 104)]
    assert GREEDY not in lists(taste, "odd")
    assert sorted(lists(taste, "fresh")[GREEDY]) == ITEMS
    said = DeltaTable(f"{taste.tables.root}/data_quality").to_pandas()
    assert said[["step", "check", "rows"]].to_numpy().tolist() == [["recommend", "empty_list:nothing", 0]]
    assert "genres contains 'Oddity'" in said["detail"][0]
    recommend.run(spark, taste)
    assert DeltaTable(f"{taste.tables.root}/data_quality").to_pandas().empty
    with pytest.raises(
        ConfigError, match=r"recommend.lists.x: no column genre; did you mean genres\?; .*item_id, title"
    ):
        recommend.run(spark, with_recommend(taste, lists={"x": "genre = 'Odd'"}))


def test_later_users_are_served_from_newer_events_without_training(
    spark: SparkSession, taste: Config, tmp_path: Path
) -> None:
    recommend.run(spark, taste)
    trained = lists(taste)
    shutil.copytree(taste.tables.root, tmp_path / "later")
    config = replace(taste, tables=replace(taste.tables, root=str(tmp_path / "later")))
    store = TableStore(spark, config.tables.root)
    new, on_new_item, cold = 60, 61, 70
    known = {**histories(), new: [101, 203, 103], on_new_item: [203]}
    events = frame(spark, C.EVENTS, event_rows(known, "r2"))
    versions = {
        "events": store.write(events, C.EVENTS, "r2"),
        "users": store.write(spark.sql(f"SELECT {cold}L user_id, map() attributes, 'r2' run_id"), C.USERS, "r2"),
    }
    store.write(frame(spark, C.ITEMS, item_rows((203,), "r2")), C.ITEMS, "r2")
    result = recommend.run(spark, config)
    made = lists(config)
    assert {user: made[user] for user in trained} == trained
    assert made[new] == expected_ranking([101, 103], hidden=[101, 103])[:10]
    count = Counter(item for items in histories().values() for item in items)
    most = sorted(ITEMS, key=lambda item: (-count[item], item))[:10]
    assert made[on_new_item] == made[cold] == most
    table = DeltaTable(f"{config.tables.root}/top_n").to_pandas()
    source = table.groupby("user_id")["source"].agg(set).to_dict()
    later = {new: {"history"}, on_new_item: {"popular"}, cold: {"popular"}}
    assert source == {user: {"model"} for user in trained} | later
    assert table[table["user_id"] == cold].sort_values("rank")["score"].tolist() == [count[item] for item in most]
    commit = store.commit(C.TOP_N, result.version)
    assert commit is not None
    assert commit.read == versions
    (said,) = (
        DeltaTable(f"{config.tables.root}/data_quality").to_pandas().query("step == 'recommend'").to_dict("records")
    )
    assert (said["check"], said["rows"], list(said["examples"])) == ("items_without_model_rows", 1, ["203"])


def test_rows_say_why_and_what_being_diverse_costs(spark: SparkSession, taste: Config) -> None:
    recommend.run(spark, with_recommend(taste, explain=True, diversity=0.5))
    table = DeltaTable(f"{taste.tables.root}/top_n").to_pandas()
    for row in table.itertuples():
        assert sum(part["value"] for part in row.contributions) == pytest.approx(row.score, abs=1e-5)
        assert [part["kind"] for part in row.contributions if part["item_id"] is None] == [
            "item_bias", "genres", "remainder",
        ]  # fmt: skip
    first = table[(table["user_id"] == 0) & (table["rank"] == 1)].iloc[0]
    newest = histories()[0][:-4:-1]  # of one taste, so the newest pushed most
    assert [part["item_id"] for part in first.contributions if part["item_id"]] == [str(item) for item in newest]
    assert first.because == "Because you liked Film {}, Film {} and Film {}".format(*newest)
    # the two tastes take turns: there are two different vectors only
    own = table[table["user_id"] == 0].sort_values("rank")
    assert set(own["item_id"][:2] % 2) == {0, 1}
    assert own["diversity_cost"].iloc[0] == 0.0 < own["diversity_cost"].iloc[1]
    quality = DeltaTable(f"{taste.tables.root}/data_quality").to_pandas()
    (said,) = quality[quality["check"] == "diversity_cost:default"].to_dict("records")
    assert said["rows"] == (table["diversity_cost"] != 0).sum()
    recommend.run(spark, taste)
    plain = DeltaTable(f"{taste.tables.root}/top_n").to_pandas()
    assert plain[["contributions", "because", "diversity_cost"]].isna().all().all()


def test_parameters_that_are_not_finite_are_refused_with_the_title(
    spark: SparkSession, taste: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*arguments: object) -> Machine:
        machine = load_machine(*arguments)  # type: ignore[arg-type]
        machine.history[0, 1, 7, 1] = np.inf
        return machine

    monkeypatch.setattr(inputs, "load_machine", poisoned)
    with pytest.raises(DivergenceError, match=r"1 items, first 107 \(Film 107\)"):
        recommend.run(spark, taste)


def test_recommend_before_train_names_the_job_to_run(spark: SparkSession, config: Config) -> None:
    with pytest.raises(TableError, match="train"):
        recommend.run(spark, config)


def test_the_machine_is_freed_after_use(spark: SparkSession, taste: Config) -> None:
    store = TableStore(spark, taste.tables.root)
    read = load_inputs(store, taste, "publish")
    rule = default_rule(3, np.ones(N_ITEMS, bool))
    with top_n_rows(served(store, read), read.machine, read.catalogue, [rule]) as rows:
        assert rows.frame().count() > 0
    with pytest.raises(Exception, match=r"(?i)broadcast"):
        rows.frame().count()
