"""Items for items, and users for items."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_0, FROM_1, SHARE, Check
from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example

SIMILAR_ITEMS = Contract(
    "similar_items",
    "The nearest items of every item: one row per item and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        Column("rank", "int", "1 is nearest; dense", check=FROM_1),
        Column("similar_item_id", ID, "the neighbour, as in the input; it has at least similar.min_count events"),
        Column("similar_title", "string", "its title"),
        Column(
            "score",
            "double",
            "cosine of the item vectors, -1 to 1, or their inner product (similar.metric), divided by the neighbour's "
            "events to the power similar.popularity_discount",
        ),
        Column("shares_genre", "boolean", "whether they have a genre in common; null when one has none", nullable=True),
        Column(
            "source",
            "string",
            "model: by the item's own vector; blended: the item has fewer than similar.min_count events, its vector is "
            "blended with what its genres suggest",
            check=Check(one_of=("model", "blended")),
        ),
    ),
    key=("run_id", "item_id", "rank"),
    mode="by_run",
    order=("item_id", "rank"),
    row_group_bytes=2**20,
    properties=(
        ("delta.dataSkippingStatsColumns", "run_id,item_id"),
        ("parquet.enable.dictionary#score", "false"),
    ),
    example=Example(
        "The neighbours of an item",
        ("rank", "similar_title", "score"),
        (("run_id", "=", RUN), ("item_id", "=", 1), ("rank", "<=", 10)),
        "rank",
    ),
)

ITEM_AUDIENCE = Contract(
    "item_audience",
    "The best users for the asked-for items and segments: one row per item or segment and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column(
            "kind",
            "string",
            "item (of audience.items) or segment (of audience.segments)",
            check=Check(one_of=("item", "segment")),
        ),
        Column("target", "string", "item_id as text, or the segment's name"),
        Column("title", "string", "the item's title, or the segment's filter"),
        Column("rank", "int", "1 is best; dense", check=FROM_1),
        Column("user_id", ID, "the customer, as in the input"),
        Column(
            "score",
            "double",
            "comparable across users: with losses softmax and bpr the log of the user's probability of the item among "
            "all items (nats, at most 0), with logistic the probability of a like, with squared the predicted rating; "
            "of a segment the mean or the largest of these over its items (audience.segment_score), the log taken "
            "last",
        ),
        Column("source", "string", "model: scored by the machine from the user's history"),
    ),
    key=("run_id", "kind", "target", "rank"),
    mode="by_run",
    order=("kind", "target", "rank"),
)

SIMILAR_QUALITY = Contract(
    "similar_quality",
    "How often neighbours have a genre in common, by three ways to choose neighbours for the same items",
    (
        RUN_ID,
        MODEL_VERSION,
        Column(
            "neighbours",
            "string",
            "model: as in similar_items; co_occurrence: by the cosine of who liked them; random: drawn",
            check=Check(one_of=("model", "co_occurrence", "random")),
        ),
        Column("share", "double", "share of the pairs that have a genre in common, 0 to 1", check=SHARE),
        Column("pairs", "bigint", "pairs of an item and a neighbour that both have genres", check=FROM_0),
        Column("items", "bigint", "items whose neighbours were looked at, 2,000 at most", check=FROM_0),
    ),
    key=("run_id", "neighbours"),
    mode="by_run",
)
