"""Which job writes which table."""

from __future__ import annotations

WRITTEN_BY = {
    "events": "events",
    "vocabulary": "events",
    "items": "events",
    "users": "events",
    "data_quality": "events",
    "fm_parameters": "train",
    "fm_model": "train",
    "training_history": "train",
    "checkpoints": "train",
    "evaluation": "evaluate",
    "top_n": "recommend",
    "item_clusters": "cluster",
    "cluster_profiles": "cluster",
    "cluster_changes": "cluster",
    "user_clusters": "cluster",
    "user_cluster_profiles": "cluster",
    "popular_items": "popular",
    "similar_items": "similar",
    "similar_quality": "similar",
    "item_audience": "audience",
    "publications": "publish",
}
"""The job that writes each table, by the table's name; messages name it when the table is missing."""
