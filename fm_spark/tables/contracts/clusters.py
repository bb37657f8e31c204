"""Items that belong together."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract

ITEM_CLUSTERS = Contract(
    "item_clusters",
    "Which cluster every item belongs to",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        Column("cluster_id", "int", "from 0; key of cluster_profiles"),
        Column(
            "distance",
            "double",
            "Euclidean distance to the cluster's centre, 0 to 2, of the normalised vector that assigned the item "
            "(that of a rare item is blended with what its genres suggest)",
        ),
        Column("is_medoid", "boolean", "true for the item nearest to the centre (one per cluster)"),
    ),
    key=("run_id", "item_id"),
    mode="by_run",
    order=("cluster_id", "item_id"),
)

CLUSTER_PROFILES = Contract(
    "cluster_profiles",
    "What every cluster is about",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("cluster_id", "int", "from 0"),
        Column("size", "bigint", "items in the cluster"),
        Column("label", "string", "a name made from the genres, tags and exemplars"),
        Column(
            "top_genres",
            "array<struct<name:string,share:double,lift:double>>",
            "what sets the cluster apart, best first; lift = share in the cluster / share in the catalogue",
        ),
        Column(
            "top_tags",
            "array<struct<name:string,share:double,lift:double>>",
            "tags by lift; empty when the input has none",
        ),
        Column(
            "exemplars",
            "array<struct<item_id:string,title:string,distance:double,count:bigint>>",
            "five items that are close to the centre and well known; item_id as text",
        ),
    ),
    key=("run_id", "cluster_id"),
    mode="by_run",
)
