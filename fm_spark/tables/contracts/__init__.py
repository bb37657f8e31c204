"""The tables that fm_spark writes, declared as data: name, columns, types, comments and key.

Everything that needs to know a table (the writer, the reader, the documentation, the tests) reads it here.
"""

from __future__ import annotations

from fm_spark.tables.contracts.check import Check
from fm_spark.tables.contracts.clusters import (
    CLUSTER_CHANGES,
    CLUSTER_PROFILES,
    ITEM_CLUSTERS,
    USER_CLUSTER_PROFILES,
    USER_CLUSTERS,
)
from fm_spark.tables.contracts.contract import ID, MODEL_VERSION, RUN_ID, Column, Contract, Mode
from fm_spark.tables.contracts.inputs import DATA_QUALITY, EVENTS, ITEMS, USERS, VOCABULARY
from fm_spark.tables.contracts.lists import TOP_N
from fm_spark.tables.contracts.lock import LOCKS
from fm_spark.tables.contracts.model import CHECKPOINTS, EVALUATION, FM_MODEL, FM_PARAMETERS, TRAINING_HISTORY
from fm_spark.tables.contracts.neighbours import ITEM_AUDIENCE, SIMILAR_ITEMS, SIMILAR_QUALITY
from fm_spark.tables.contracts.popular import POPULAR_ITEMS
from fm_spark.tables.contracts.publication import PUBLICATIONS

# the tables that a run hands to readers; CHECKPOINTS and LOCKS are none of them
ALL: tuple[Contract, ...] = (
    EVENTS, VOCABULARY, ITEMS, USERS, DATA_QUALITY, FM_PARAMETERS, FM_MODEL, TRAINING_HISTORY, EVALUATION, TOP_N,
    ITEM_CLUSTERS, CLUSTER_PROFILES, CLUSTER_CHANGES, USER_CLUSTERS, USER_CLUSTER_PROFILES,
    POPULAR_ITEMS, SIMILAR_ITEMS, SIMILAR_QUALITY, ITEM_AUDIENCE, PUBLICATIONS,
)  # fmt: skip

__all__ = [
    "ALL",
    "CHECKPOINTS",
    "CLUSTER_CHANGES",
    "CLUSTER_PROFILES",
    "DATA_QUALITY",
    "EVALUATION",
    "EVENTS",
    "FM_MODEL",
    "FM_PARAMETERS",
    "ID",
    "ITEMS",
    "ITEM_AUDIENCE",
    "ITEM_CLUSTERS",
    "LOCKS",
    "MODEL_VERSION",
    "POPULAR_ITEMS",
    "PUBLICATIONS",
    "RUN_ID",
    "SIMILAR_ITEMS",
    "SIMILAR_QUALITY",
    "TOP_N",
    "TRAINING_HISTORY",
    "USERS",
    "USER_CLUSTERS",
    "USER_CLUSTER_PROFILES",
    "VOCABULARY",
    "Check",
    "Column",
    "Contract",
    "Mode",
]
