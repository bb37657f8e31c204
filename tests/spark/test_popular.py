from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from taste_run import MODEL, RUN, histories

from fm_spark.config import Config
from fm_spark.events.catalogue import load_catalogue
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.popular import count_items
from fm_spark.tables.store import TableStore
from jobs import popular


def test_popular_items_of_a_log_without_ratings(spark: SparkSession, taste: Config) -> None:
    """Day p of the log is position p: the newest window of 2 days holds positions 38 and 39, of the greedy user."""
    config = replace(taste, popular=replace(taste.popular, n=5, recent_days=2.0, previous_days=4.0, smoothing=1.0))
    result = popular.run(spark, config)
    assert (result.run_id, result.model_version, result.kinds) == (RUN, MODEL, ("count", "trending"))
    rows: pd.DataFrame = DeltaTable(f"{taste.tables.root}/popular_items").to_pandas()
    assert (len(rows), set(rows["run_id"]), set(rows["model_version"])) == (result.rows, {RUN}, {MODEL})
    lists = {k: g.sort_values("rank")["item_id"].tolist() for k, g in rows.groupby(["kind", "genre"])}
    events = Counter(item for items in histories().values() for item in items)
    by_count = sorted(events, key=lambda item: (-events[item], item))
    assert lists["count", ""] == lists["count", "All"] == by_count[:5]
    assert lists["count", "Even"] == [item for item in by_count if item % 2 == 0][:5]
    assert lists["trending", ""] == [138, 139]
    assert lists["trending", "Odd"] == [139]
    again = popular.run(spark, config)
    assert again.rows == result.rows


def test_windows_end_at_the_newest_event(spark: SparkSession, taste: Config) -> None:
    read = load_inputs(TableStore(spark, taste.tables.root), taste, "publish")
    catalogue = load_catalogue(read.items)
    settings = replace(taste.popular, recent_days=1.0, previous_days=2.0)
    late = read.events.where("user_id = 50").withColumn("value", F.col("item_id") / 100)
    counts = count_items(late, catalogue, settings)
    assert counts.rated
    assert counts.recent.tolist() == [0] * 39 + [1]  # the window is open at its start: a day old is not in it
    assert counts.before.tolist() == [0] * 37 + [1, 1, 0]
    assert counts.mean[7] == pytest.approx(1.07, abs=1e-6)
    moved = late.withColumn("time", F.col("time") + F.expr(f"INTERVAL {timedelta(days=400).days} DAYS"))
    assert count_items(moved, catalogue, settings).recent.tolist() == counts.recent.tolist()
