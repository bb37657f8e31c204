"""Lists of items for users."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_1, Check
from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example

TOP_N = Contract(
    "top_n",
    "The best items of every user: one row per list, user and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("list_name", "string", "default, or the name of a list of recommend.lists", since=2),
        Column("user_id", ID, "the customer, as in the input"),
        Column("rank", "int", "1 is best; dense within a list", check=FROM_1),
        Column("item_id", ID, "the recommended item, as in the input"),
        Column("title", "string", "its title"),
        Column(
            "score",
            "double",
            "the machine's score, comparable within a user only; with source popular the events of the item",
        ),
        Column(
            "source",
            "string",
            "model (the machine, a user it was trained on), history (the machine, from the events of a later user) or "
            "popular (a user without an event on an item that the machine knows)",
            check=Check(one_of=("model", "history", "popular")),
        ),
        Column(
            "contributions",
            "array<struct<kind:string,item_id:string,value:double>>",
            "with recommend.explain, parts of the score that add up to it: item_bias, up to three history_liked or "
            "history_not_liked (item_id: the past item, as text), genres (all side features), remainder; with source "
            "popular, popularity",
            nullable=True,
        ),
        Column(
            "because",
            "string",
            "with recommend.explain: Because you liked ..., where a liked item is among these",
            nullable=True,
        ),
        Column(
            "diversity_cost",
            "double",
            "with recommend.diversity: score that the list has at this rank without it, minus score",
            nullable=True,
        ),
    ),
    key=("run_id", "list_name", "user_id", "rank"),
    mode="by_run",
    order=("user_id", "list_name", "rank"),
    # some 70,000 rows: a look-up decodes one row group, see docs/performance.md, "Reading one list"
    row_group_bytes=2**20,
    properties=(
        ("delta.enableChangeDataFeed", "true"),
        # what files are skipped by; statistics of all columns take a quarter of the time of the write
        ("delta.dataSkippingStatsColumns", "run_id,list_name,user_id"),
        # scores hardly repeat
        ("parquet.enable.dictionary#score", "false"),
    ),
    example=Example(
        "The best items of a user",
        ("rank", "item_id", "title", "score"),
        (("run_id", "=", RUN), ("list_name", "=", "default"), ("user_id", "=", 10), ("rank", "<=", 10)),
        "rank",
    ),
)
