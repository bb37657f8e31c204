"""What is popular."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract

POPULAR_ITEMS = Contract(
    "popular_items",
    "The most popular items of three kinds, overall and per genre: one row per kind, genre and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("kind", "string", "count, weighted_rating (absent when all values of the log are equal) or trending"),
        Column("genre", "string", "the genre whose items are ranked; empty for all items"),
        Column("rank", "int", "1 is best; dense"),
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        Column(
            "score",
            "double",
            "count: events; weighted_rating: in the unit of value; trending: how many times as many events in the "
            "newest window as before, smoothed; 1 is no change",
        ),
        Column("count", "bigint", "events of the item, all of the log"),
        Column("mean_value", "double", "mean value of the item's events"),
        Column("recent_count", "bigint", "events in the newest popular.recent_days days of the log"),
        Column("previous_count", "bigint", "events in the popular.previous_days days before those"),
    ),
    key=("run_id", "kind", "genre", "rank"),
    mode="by_run",
    order=("kind", "genre", "rank"),
)
