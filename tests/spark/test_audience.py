from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from taste_run import ITEMS, MODEL, RUN, histories, with_text_ids

from fm_spark.config import Config
from fm_spark.events.catalogue import load_catalogue
from fm_spark.ranking.audience import asked_for, audience_rows
from fm_spark.ranking.inputs import load_inputs
from fm_spark.tables.store import TableStore
from jobs import audience


def with_audience(config: Config, **changes: object) -> Config:
    return replace(config, audience=replace(config.audience, **changes))  # type: ignore[arg-type]


def log_chances(history: list[int]) -> dict[int, float]:
    """ln p of every item for a user of the taste run: 5 x (decayed history of the item's taste) - place / 100."""
    newest_first = history[::-1]
    norm = math.sqrt(math.fsum(0.25**j for j in range(len(history))))
    length = [5 * math.fsum(0.5**j for j, i in enumerate(newest_first) if i % 2 == t) / norm for t in (0, 1)]
    score = {item: length[item % 2] - place / 100 for place, item in enumerate(ITEMS)}
    total = math.log(math.fsum(math.exp(one) for one in score.values()))
    return {item: one - total for item, one in score.items()}


def expected(items: list[int], n: int) -> list[tuple[int, float]]:
    """The users with the best ln of the mean chance of the items that they do not know."""
    means = []
    for user, history in histories().items():
        chances = log_chances(history)
        own = [chances[item] for item in items if item not in history]
        if own:
            mean = math.log(math.fsum(map(math.exp, own)) / len(own))
            means.append((-round(mean, 6), user))
    return [(user, -score) for score, user in sorted(means)[:n]]


def lists(config: Config) -> dict[tuple[str, str], pd.DataFrame]:
    rows = DeltaTable(f"{config.tables.root}/item_audience").to_pandas().sort_values(["kind", "target", "rank"])
    assert set(rows["run_id"]) == {RUN}
    assert set(rows["model_version"]) == {MODEL}
    return dict(list(rows.groupby(["kind", "target"])))


def test_the_users_with_the_best_chances_in_order(spark: SparkSession, taste: Config) -> None:
    segments = {"even": "genres contains 'Even'", "none": "genres contains 'Western'"}
    config = with_audience(taste, items=[117, 100], segments=segments, n=8)
    result = audience.run(spark, config)
    made = lists(config)
    assert set(made) == {("item", "100"), ("item", "117"), ("segment", "even")}
    wanted = {"100": [100], "117": [117], "even": [item for item in ITEMS if item % 2 == 0]}
    for (_, target), rows in made.items():
        best = expected(wanted[target], 8)
        assert rows["rank"].tolist() == list(range(1, len(best) + 1))
        assert rows["user_id"].tolist() == [user for user, _ in best]
        assert rows["score"].tolist() == pytest.approx([score for _, score in best], abs=2e-6)
    assert made["item", "117"]["title"].unique().tolist() == ["Film 117"]
    assert made["segment", "even"]["title"].unique().tolist() == ["genres contains 'Even'"]
    assert result.users["segment", "none"] == 0
    said = DeltaTable(f"{config.tables.root}/data_quality").to_pandas().query("step == 'audience'")
    assert said["detail"].tolist() == [
        "segment none (genres contains 'Western') has no users: no item passes its filter"
    ]


def test_text_ids_and_users_who_know_the_item(spark: SparkSession, taste: Config) -> None:
    read = load_inputs(TableStore(spark, taste.tables.root), taste, "publish")
    catalogue = load_catalogue(with_text_ids(read.items))
    events = read.events.withColumn("user_id", F.concat(F.lit("u"), F.col("user_id").cast("string")))
    config = with_audience(taste, items=["i104"], n=100, exclude_seen=False).audience
    asked = asked_for(config, catalogue, [])
    with audience_rows(events.repartition(5), read.machine, catalogue, asked, config) as rows:
        found = rows.orderBy("rank").collect()
    users = sorted((-round(log_chances(history)[104], 6), f"u{user}") for user, history in histories().items())
    assert [row["user_id"] for row in found] == [user for _, user in users]
