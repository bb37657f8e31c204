"""Lists of items for users."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract

TOP_N = Contract(
    "top_n",
    "The best items of every user: one row per list, user and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("list_name", "string", "default, or the name of a list of recommend.lists"),
        Column("user_id", ID, "the customer, as in the input"),
        Column("rank", "int", "1 is best; dense within a list"),
        Column("item_id", ID, "the recommended item, as in the input"),
        Column("title", "string", "its title"),
        Column("score", "double", "the machine's score; comparable within a user only"),
        Column("source", "string", "model: scored by the machine from the user's history"),
    ),
    key=("run_id", "list_name", "user_id", "rank"),
    mode="by_run",
    order=("user_id", "list_name", "rank"),
)
