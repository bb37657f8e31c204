"""Items that belong together, and users of one taste."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_0, SHARE, Check
from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example

_CLUSTER_ID = Column(
    "cluster_id",
    "int",
    "key of cluster_profiles; goes on from the last publication, so that ids may have gaps, and is never given twice",
    check=FROM_0,
)
_STABILITY = Column(
    "stability",
    "double",
    "adjusted Rand index of these clusters and those that the ids come from, over the items that both have: 1 the "
    "same, 0 no more alike than by chance; null without an earlier publication",
    nullable=True,
    check=Check(at_most=1),
)
_TRAITS = "array<struct<name:string,share:double,lift:double>>"

ITEM_CLUSTERS = Contract(
    "item_clusters",
    "Which cluster every item belongs to",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        _CLUSTER_ID,
        Column(
            "distance",
            "double",
            "Euclidean distance to the cluster's centre, 0 to 2, of the normalised vector that assigned the item "
            "(that of a rare item is blended with what its genres suggest)",
            check=FROM_0,
        ),
        Column("is_medoid", "boolean", "true for the item nearest to the centre (one per cluster)"),
        Column(
            "supported",
            "boolean",
            "true for an item with at least cluster.min_count events: it shaped the clusters; false for one that "
            "joined the nearest of them",
        ),
    ),
    key=("run_id", "item_id"),
    mode="by_run",
    order=("cluster_id", "item_id"),
    example=Example(
        "The items of a cluster, nearest to its centre first",
        ("item_id", "title", "distance"),
        (("run_id", "=", RUN), ("cluster_id", "=", 0)),
        "distance",
    ),
)

_STANDING_OUT = Check(fields=(("share", SHARE), ("lift", FROM_0)))

CLUSTER_PROFILES = Contract(
    "cluster_profiles",
    "What every cluster is about",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("cluster_id", "int", "as in item_clusters", check=FROM_0),
        Column("size", "bigint", "items in the cluster", check=FROM_0),
        Column("label", "string", "a name made from the genres, tags and exemplars"),
        Column(
            "top_genres",
            _TRAITS,
            "what sets the cluster apart, best first; lift = share in the cluster / share in the catalogue",
            check=_STANDING_OUT,
        ),
        Column(
            "top_tags",
            _TRAITS,
            "tags by lift; empty when the input has none",
            check=_STANDING_OUT,
        ),
        Column("top_decades", _TRAITS, "decades of release (1990s) by lift; empty when the input has no years"),
        Column(
            "exemplars",
            "array<struct<item_id:string,title:string,distance:double,count:bigint>>",
            "five items that are close to the centre and well known; item_id as text",
            check=Check(fields=(("distance", FROM_0), ("count", FROM_0))),
        ),
        Column("cohesion", "double", "mean cosine of the items' vectors and the cluster's centre, 1 = all alike"),
        Column(
            "status",
            "string",
            "kept (the id comes from the last publication) | born (a new id)",
            check=Check(one_of=("kept", "born")),
        ),
        _STABILITY,
    ),
    key=("run_id", "cluster_id"),
    mode="by_run",
)

CLUSTER_CHANGES = Contract(
    "cluster_changes",
    "What became of every cluster id since the publication that the ids come from",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("cluster_id", "int", "as in item_clusters; of a dead cluster as in those of matched_run_id"),
        Column(
            "status",
            "string",
            "kept (in both runs) | born (new in this run) | dead (no longer in this run)",
            check=Check(one_of=("kept", "born", "dead")),
        ),
        Column("size", "bigint", "items in the cluster now; 0 of a dead one", check=FROM_0),
        Column(
            "size_before", "bigint", "items in the cluster of that id in matched_run_id; 0 of a new one", check=FROM_0
        ),
        Column(
            "counterpart_id",
            "int",
            "kept: the id itself; born: the earlier cluster that most of its items were in; dead: the cluster that "
            "most of its items are in now; null when none of them is in both runs",
            nullable=True,
        ),
        Column("shared_items", "bigint", "items that are in this cluster and in its counterpart", check=FROM_0),
        _STABILITY,
        Column(
            "matched_run_id",
            "string",
            "the run whose published clusters the ids come from; null without one",
            nullable=True,
        ),
        Column("next_id", "int", "what the next new cluster will be called: more than any id before it"),
    ),
    key=("run_id", "cluster_id"),
    mode="by_run",
)

USER_CLUSTERS = Contract(
    "user_clusters",
    "Which taste group every user belongs to; written with cluster.users = true",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("user_id", ID, "the user, as in the input"),
        Column("cluster_id", "int", "from 0; key of user_cluster_profiles; of this run alone", check=FROM_0),
        Column(
            "distance", "double", "Euclidean distance to the group's centre, 0 to 2, of the normalised query vector"
        ),
    ),
    key=("run_id", "user_id"),
    mode="by_run",
    order=("user_id",),
)

USER_CLUSTER_PROFILES = Contract(
    "user_cluster_profiles",
    "What the users of every taste group like",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("cluster_id", "int", "as in user_clusters"),
        Column("size", "bigint", "users in the group", check=FROM_0),
        Column("label", "string", "a name made from the genres and exemplars"),
        Column(
            "top_genres",
            _TRAITS,
            "genres that the group likes more than others do, best first; share = share of what its users like; lift = "
            "that / the share of what all users like",
        ),
        Column(
            "exemplars",
            "array<struct<item_id:string,title:string,share:double,lift:double>>",
            "five items that stand out; share = share of the group's users who like it; lift = that / the share of all "
            "users; item_id as text",
        ),
    ),
    key=("run_id", "cluster_id"),
    mode="by_run",
    example=Example(
        "What the clusters are about", ("cluster_id", "label", "size"), (("run_id", "=", RUN),), "cluster_id"
    ),
)
