from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from taste_run import ITEMS, MODEL, RUN

from fm_spark.config import Config
from jobs import similar


def with_similar(config: Config, **changes: object) -> Config:
    return replace(config, similar=replace(config.similar, **changes))  # type: ignore[arg-type]


def lists(config: Config) -> dict[int, pd.DataFrame]:
    rows = DeltaTable(f"{config.tables.root}/similar_items").to_pandas().sort_values(["item_id", "rank"])
    return dict(list(rows.groupby("item_id")))


def test_neighbours_are_those_of_the_same_taste_by_item_id(spark: SparkSession, taste: Config) -> None:
    result = similar.run(spark, with_similar(taste, n=5, min_count=1))
    assert (result.run_id, result.model_version, result.candidates) == (RUN, MODEL, len(ITEMS))
    made = lists(taste)
    assert sorted(made) == ITEMS
    for item, rows in made.items():
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5]
        assert rows["similar_item_id"].tolist() == [i for i in ITEMS if i % 2 == item % 2 and i != item][:5]
        assert rows["similar_title"].tolist() == [f"Film {i}" for i in rows["similar_item_id"]]
        assert (rows["title"] == f"Film {item}").all()
    whole = pd.concat(made.values())
    assert (set(whole["score"]), set(whole["shares_genre"]), set(whole["source"])) == ({1.0}, {True}, {"model"})
    quality = DeltaTable(f"{taste.tables.root}/similar_quality").to_pandas().set_index("neighbours")
    # every item has the genre All
    assert quality["share"].to_dict() == {"model": 1.0, "co_occurrence": 1.0, "random": 1.0}
    assert quality.loc["model", ["pairs", "items"]].tolist() == [5 * len(ITEMS), len(ITEMS)]


def test_rare_items_ask_and_are_not_named_and_lists_end_with_the_candidates(
    spark: SparkSession, taste: Config, caplog: pytest.LogCaptureFixture
) -> None:
    counts = DeltaTable(f"{taste.tables.root}/items").to_pandas().set_index("item_id")["count"]
    floor = 3
    known = sorted(counts[counts >= floor].index)
    with caplog.at_level(logging.WARNING):
        similar.run(spark, with_similar(taste, n=40, min_count=floor, popularity_discount=0.5))
    assert f"similar.n = 40 is more than the {len(known) - 1} other items" in caplog.text
    made = lists(taste)
    assert sorted(made) == ITEMS
    for item, rows in made.items():
        assert sorted(rows["similar_item_id"]) == [i for i in known if i != item]
        assert set(rows["source"]) == {"model" if item in known else "blended"}
        nearest = rows.iloc[0]
        assert nearest["similar_item_id"] % 2 == item % 2  # a rare item's vector and genres say the same
        if item in known:
            assert nearest["score"] == pytest.approx(floor**-0.5)
    assert np.isfinite(pd.concat(made.values())["score"]).all()
