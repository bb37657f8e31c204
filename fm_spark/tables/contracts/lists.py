"""Lists of items for users."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract

TOP_N = Contract(
    "top_n",
    "The best items of every user: one row per user and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("user_id", ID, "the customer, as in the input"),
        Column("rank", "int", "1 is best; dense"),
        Column("item_id", ID, "the recommended item, as in the input"),
        Column("title", "string", "its title"),
        Column("score", "double", "the machine's score; comparable within a user only"),
        Column("source", "string", "model: scored by the machine from the user's history"),
    ),
    key=("run_id", "user_id", "rank"),
    mode="by_run",
    order=("user_id", "rank"),
)
