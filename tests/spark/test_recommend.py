from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from taste_run import GREEDY, ITEMS, MODEL, N_ITEMS, RUN, expected_ranking, histories, with_recommend

from fm_spark.config import Config
from fm_spark.core.machine import Machine
from fm_spark.errors import ConfigError, DivergenceError, TableError
from fm_spark.events.catalogue import load_catalogue
from fm_spark.ranking import inputs
from fm_spark.ranking.filters import Rule
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.list_rules import ListRule
from fm_spark.ranking.top_n import top_n_rows
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
    as_text = F.concat(F.lit("i"), F.col("item_id").cast("string"))
    items, events = read.items.withColumn("item_id", as_text), read.events.withColumn("item_id", as_text)
    events = events.withColumn("user_id", F.concat(F.lit("u"), F.col("user_id").cast("string")))
    catalogue = load_catalogue(items)
    allowed = np.arange(len(ITEMS)) >= 30
    with top_n_rows(events, read.machine, catalogue, [default_rule(3, allowed)]) as rows:
        found = {(row["user_id"], row["rank"]): row["item_id"] for row in rows.collect()}
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
    read = load_inputs(TableStore(spark, taste.tables.root), taste, "publish")
    with top_n_rows(read.events, read.machine, read.catalogue, [default_rule(3, np.ones(N_ITEMS, bool))]) as rows:
        assert rows.count() > 0
    with pytest.raises(Exception, match=r"(?i)broadcast"):
        rows.count()
