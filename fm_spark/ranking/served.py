"""Whom ``recommend`` serves: the users of the newest events, whether or not the model was trained on them.

A model of histories needs no training to serve a user who came later: his events are enough. What it cannot rank is an
item that came later, for it has no row of it; such items are left out and counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.histories import Histories, SparkHistories, file_histories
from fm_spark.events.quality import MAX_EXAMPLES, Finding
from fm_spark.events.user_columns import ATTRIBUTES, with_attributes
from fm_spark.ranking.inputs import RankingInputs
from fm_spark.tables.contracts import EVENTS, ITEMS, USERS
from fm_spark.tables.store import TableStore

TRAINED, NEW = "train", "unused"
"""What :attr:`Served.events` say in ``split``: the user was in the training events, or was not."""


class Served(NamedTuple):
    """The histories that lists are made from.

    Attributes:
        histories: where some user may be new, with ``split``: :data:`TRAINED` or :data:`NEW` for all events of a
            user. A user without events has one row, of no item.
        feature_to_item: int32; index of the item that has the feature, -1 for one that the model has no row of. The
            last is the feature of no item.
        read: versions of the tables that were read, by name.
        findings: items that cannot be ranked.
    """

    histories: Histories
    feature_to_item: npt.NDArray[np.int32]
    read: dict[str, int]
    findings: list[Finding]


def served(store: TableStore, inputs: RankingInputs) -> Served:
    """The newest events, and the users of the table ``users`` that belongs to them."""
    trained_on = inputs.model.input_versions.get(EVENTS.name)
    newest = store.version(EVENTS)
    columns = ["user_id", "position", "item_feature", "label", *(["time"] if inputs.machine.context.time else [])]
    read, findings, features = {EVENTS.name: newest}, list[Finding](), inputs.catalogue.feature_to_item
    users = _users(store, newest, read)
    if trained_on is None or trained_on == newest:
        straight = file_histories(store, newest) if users is None and not inputs.machine.context.user else None
        if straight is not None:
            return Served(straight, np.append(features, np.int32(-1)), read, findings)
        events = inputs.events.select(*columns)
    else:
        events = _marked(store.read(EVENTS, newest).select(*columns), inputs.events)
        features, findings = _with_later_items(store, inputs)
    if users is not None:
        events = _with_all_users(events, users, len(features))
    if inputs.machine.context.user:
        none = inputs.events.select("user_id", F.col(ATTRIBUTES).alias("attributes")).limit(0)
        events = with_attributes(events, none if users is None else users)
    return Served(SparkHistories(events), np.append(features, np.int32(-1)), read, findings)


def _marked(events: DataFrame, training: DataFrame) -> DataFrame:
    """The events with ``split`` telling the users of the training events from the others."""
    known = training.select("user_id").distinct().withColumn("_known", F.lit(True))
    split = F.when(F.col("_known"), F.lit(TRAINED)).otherwise(F.lit(NEW))
    return events.join(known, on="user_id", how="left").withColumn("split", split).drop("_known")


def _with_later_items(store: TableStore, inputs: RankingInputs) -> tuple[npt.NDArray[np.int32], list[Finding]]:
    """``feature_to_item`` with -1 for the items that came after training, and what ``data_quality`` says of them."""
    known = inputs.catalogue.feature_to_item
    items = store.rows(ITEMS, columns=("item_id", "item_feature")).to_pandas().sort_values("item_id")
    feature = items["item_feature"].to_numpy(np.int64)
    features = np.full(max(len(known), int(feature.max(initial=-1)) + 1), -1, np.int32)
    features[: len(known)] = known
    later = items["item_id"][features[feature] < 0]
    if later.empty:
        return features, []
    detail = (
        f"items that came after model {inputs.model.model_version} was trained: it has no rows of them, so they are in "
        "no list and in no history; train again"
    )
    shown = tuple(str(item) for item in later.head(MAX_EXAMPLES))
    return features, [Finding("items_without_model_rows", len(later), "dropped", detail, shown)]


def _users(store: TableStore, events_version: int, read: dict[str, int]) -> DataFrame | None:
    """The table ``users`` of the run that wrote the events, noted in ``read``; None where it has none."""
    if not store.exists(USERS):
        return None
    version = store.version(USERS)
    of_users, of_events = store.commit(USERS, version), store.commit(EVENTS, events_version)
    if of_users is None or of_events is None or of_users.run_id != of_events.run_id:
        return None
    read[USERS.name] = version
    return store.read(USERS, version)


def _with_all_users(events: DataFrame, users: DataFrame, no_item: int) -> DataFrame:
    """The events, and one row of no item for every user without any."""
    without = users.select("user_id").join(events.select("user_id").distinct(), on="user_id", how="left_anti")
    values = {"position": F.lit(0), "item_feature": F.lit(no_item), "label": F.lit(0.0), "split": F.lit(NEW)}
    # any time will do: these users have no history that it could be compared with
    values["time"] = F.timestamp_micros(F.lit(0))
    marked = events if "split" in events.columns else events.withColumn("split", F.lit(TRAINED))
    row = [values[name].cast(marked.schema[name].dataType).alias(name) for name in marked.columns if name != "user_id"]
    return marked.unionByName(without.select("user_id", *row))
