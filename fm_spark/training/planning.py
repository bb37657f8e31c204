"""The planner's input from a configuration, the counts of the data and the session."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession

from fm_spark.config import Config
from fm_spark.core.event_cost import EventWorkload
from fm_spark.core.planner import Plan, Workload, plan, zipf_counts
from fm_spark.core.ranker_cost import RankerWorkload
from fm_spark.core.time_fields import TIME_FIELDS
from fm_spark.events.catalogue import Catalogue
from fm_spark.training.features import item_features, side_fields
from fm_spark.training.recipes import EventRates, recipes_to_try
from fm_spark.training.resolve import DataSize, block_count, round_count


@dataclass(frozen=True)
class Counts:
    """Counts of the data.

    Attributes:
        size: the training part, which ``auto`` follows from.
        events, positives: of all splits: what the published machine is fitted on.
        of_items: float64 [n_items], events of each item.
        side_features, context_features: features of items, and of times and users' columns.
        origin: where the counts come from, for the report.
    """

    size: DataSize
    events: int
    positives: int
    of_items: npt.NDArray[np.float64]
    side_features: int
    context_features: int
    origin: str


@dataclass(frozen=True)
class Cluster:
    """Cores that tasks run on; ``parallelism`` is Spark's, from which the number of tasks follows."""

    executors: int
    cores: int
    parallelism: int


def counts_of_tables(config: Config, size: DataSize, catalogue: Catalogue, context_features: int = 0) -> Counts:
    """Counts of a run's tables: the liked share of the training part stands for that of all events."""
    side = len(item_features(catalogue, side_fields(config.train, catalogue)).names)
    events = int(catalogue.count.sum())
    positives = round(events * size.positives / max(1, size.events))
    of_items = catalogue.count.astype(np.float64)
    return Counts(size, events, positives, of_items, side, context_features, f"the tables under {config.tables.root}")


def overridden(config: Config, found: Counts | None) -> Counts:
    """The counts with those that ``[plan]`` gives in their place; the training part keeps its share of the events."""
    given, old = config.plan, found or _nothing(config)
    items = given.items or len(old.of_items)
    events, positives = given.events or old.events, given.positives or old.positives
    side = given.side_features or old.side_features
    if found is not None and not any((given.users, given.events, given.positives, given.items)):
        return found
    share = old.size.events / old.events if old.events else 1.0 - config.events.test_fraction
    users = given.users or old.size.users
    known = items if found is None or given.items else old.size.items
    size = DataSize(users, round(events * share), round(positives * share), min(known, items))
    origin = "[plan]" if found is None else f"[plan] over {found.origin}"
    return Counts(size, events, positives, zipf_counts(events, items, users), side, old.context_features, origin)


def _nothing(config: Config) -> Counts:
    return Counts(DataSize(0, 0, 0, 0), 0, 0, np.zeros(0), 0, time_features(config), config.tables.root)


def time_features(config: Config) -> int:
    """Rows of the fields of time that do not follow from the events, with one for unseen values each."""
    return sum(len(TIME_FIELDS[name].values or ()) + 1 for name in config.train.time)


def cluster_of(spark: SparkSession) -> Cluster:
    """Executors and cores of the session."""
    sc = spark.sparkContext
    conf, master = sc.getConf(), str(sc.master)
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master)
    several = re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*\d+\s*\]", master)
    if local:
        executors, cores = 1, len(os.sched_getaffinity(0)) if local[1] == "*" else int(local[1] or 1)
    elif several:
        executors, cores = int(several[1]), int(several[2])
    else:
        cores = int(conf.get("spark.executor.cores", "1") or 1)
        executors = max(1, int(conf.get("spark.executor.instances", "0") or 0) or sc.defaultParallelism // cores)
    return Cluster(executors, cores, sc.defaultParallelism)


def described_cluster(config: Config, session: Cluster) -> Cluster:
    """The cluster that ``[plan]`` describes; what it leaves open is that of the session."""
    if not config.plan.executors and not config.plan.cores:
        return session
    executors, cores = config.plan.executors or session.executors, config.plan.cores or session.cores
    return Cluster(executors, cores, executors * cores)


def plan_training(config: Config, counts: Counts, cluster: Cluster) -> Plan:
    """Plans the fit on all events with the settings that ``auto`` means for these counts."""
    return plan(workload_of(config, counts, cluster), counts.of_items)


def workload_of(config: Config, counts: Counts, cluster: Cluster) -> Workload:
    """What ``train.loss`` trains on these counts."""
    train, size = config.train, counts.size
    recipes = recipes_to_try(train, size)
    blocks = block_count(train, size)
    shape: dict[str, Any] = {
        "users": size.users,
        "events": counts.events,
        "positives": counts.positives,
        "items": len(counts.of_items),
        "side_features": counts.side_features,
        "context_features": counts.context_features,
        "k": train.k,
        "machines": train.ensemble,
        "local_steps": train.local_steps == "on",
        "blocks": blocks,
        "rounds": round_count(train, size, blocks),
        "fits": len(recipes) + 1 + train.refit,
        "tasks": max(1, min(blocks, cluster.parallelism)),
        "executors": cluster.executors,
        "cores": cluster.cores,
        "negatives_power": train.negatives_power,
    }
    settings = recipes[0].settings
    if isinstance(settings, EventRates):
        own = {name: getattr(settings, name) for name in ("loss", "user", "bag", "negatives")}
        return EventWorkload(**shape, **own)
    own = {name: getattr(settings, name) for name in ("decays", "negatives", "batch_size", "chunk_size")}
    return RankerWorkload(**shape, **own)
