"""What is popular."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_0, FROM_1, Check
from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example

_KINDS = Check(one_of=("count", "weighted_rating", "trending"))

POPULAR_ITEMS = Contract(
    "popular_items",
    "The most popular items of three kinds, overall and per genre: one row per kind, genre and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column(
            "kind",
            "string",
            "count, weighted_rating (absent when all values of the log are equal) or trending",
            check=_KINDS,
        ),
        Column("genre", "string", "the genre whose items are ranked; empty for all items"),
        Column("rank", "int", "1 is best; dense", check=FROM_1),
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        Column(
            "score",
            "double",
            "count: events; weighted_rating: in the unit of value; trending: how many times as many events in the "
            "newest window as before, smoothed; 1 is no change",
        ),
        Column("count", "bigint", "events of the item, all of the log", check=FROM_0),
        Column("mean_value", "double", "mean value of the item's events"),
        Column("recent_count", "bigint", "events in the newest popular.recent_days days of the log", check=FROM_0),
        Column("previous_count", "bigint", "events in the popular.previous_days days before those", check=FROM_0),
    ),
    key=("run_id", "kind", "genre", "rank"),
    mode="by_run",
    order=("kind", "genre", "rank"),
    example=Example(
        "What most people know",
        ("rank", "title", "count"),
        (("run_id", "=", RUN), ("kind", "=", "count"), ("genre", "=", ""), ("rank", "<=", 10)),
        "rank",
    ),
)
