"""Star classes of later events: what the nearest rated items say, beside the rating model and the usual class.

Like :mod:`fm_spark.evaluation.predictions`, every event that is not in the training part is asked for, and only the
user's training events answer. Measured on a sample of the users, whole histories each: the metrics of some thousand
users are those of all to the third digit, and the cosines of all would be half of the time of ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.core.class_metrics import confusion
from fm_spark.core.fm_machine import FmMachine, fm_predictions
from fm_spark.core.knn_classes import MOST_CLASSES, class_votes, unit_rows
from fm_spark.core.queries import Ranker
from fm_spark.core.sequences import TRAIN, Sequences, select
from fm_spark.evaluation.evaluate import FM
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks

KNN, MAJORITY = "knn_class", "majority_class"
_USERS = 5_000
_SHARES = 1_000_000

Ints = npt.NDArray[np.int64]


class Classified(NamedTuple):
    """What was measured: the table of counts of every ranker (see :func:`fm_spark.core.class_metrics.confusion`).

    Attributes:
        users: users with an event that was asked for; users_without: the others of the sample.
    """

    tables: dict[str, Ints]
    users: int
    users_without: int


class _Shared(NamedTuple):
    machine: Ranker
    vectors: npt.NDArray[np.float32]
    classes: npt.NDArray[np.float64]
    usual: int
    neighbours: int
    feature_to_item: npt.NDArray[np.int32]

    @property
    def rankers(self) -> list[str]:
        """Whose tables are made."""
        rates = isinstance(self.machine, FmMachine) and self.machine.loss == "squared"
        return [KNN, MAJORITY, *([FM] if rates else [])]


def later_classes(events: DataFrame, machine: Ranker, catalogue: Catalogue, neighbours: int) -> Classified | None:
    """Classes of every later event of the sampled users; None when the log has no ratings, or too many values.

    The result has the same bits whatever the partitions.

    Args:
        events: the ``events`` table with its splits.
        machine: fitted on the training part only.
        neighbours: rated items that vote.
    """
    known = F.count_if(F.col("split") == "train")
    values = events.groupBy("value").agg(known.alias("n"), F.count_if(F.col("position") == 0).alias("users"))
    rows = values.limit(MOST_CLASSES + 1).collect()
    if not 2 <= len(rows) <= MOST_CLASSES:
        return None
    rows.sort(key=lambda row: row["value"])
    usual = int(np.argmax([row["n"] for row in rows]))
    share = _USERS / max(1, sum(row["users"] for row in rows))
    if share < 1:
        events = events.where(F.pmod(F.xxhash64("user_id"), F.lit(_SHARES)) < int(share * _SHARES))
    classes = np.array([row["value"] for row in rows])
    shared = _Shared(machine, unit_rows(machine.item_factors), classes, usual, neighbours, catalogue.feature_to_item)
    spark = events.sparkSession
    with broadcast(spark, shared) as sent:
        ordered = ordered_events(events, partitions_for(spark, catalogue), True, machine.context)
        found = ordered.mapInArrow(partial(_measure, sent), "ranker string, cells array<bigint>").collect()
    tables = {ranker: np.zeros((len(classes), len(classes)), np.int64) for ranker in shared.rankers}
    users = np.zeros(2, np.int64)
    for row in found:
        cells = np.array(row["cells"], np.int64)
        if row["ranker"] in tables:
            tables[row["ranker"]] += cells.reshape(len(classes), -1)
        else:
            users += cells
    return Classified(tables, int(users[0]), int(users[1])) if users[0] else None


def _measure(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    n = len(shared.classes)
    tables = {ranker: np.zeros((n, n), np.int64) for ranker in shared.rankers}
    users = np.zeros(2, np.int64)
    for block in user_blocks(batches, shared.feature_to_item, shared.machine.context):
        later = block.part != TRAIN
        asked = np.diff(select(block, later).ptr) > 0
        users += [asked.sum(), (~asked).sum()]
        for ranker, table in _tables(select(block, ~later), select(block, later), shared).items():
            tables[ranker] += table
    cells = [*(table.ravel().tolist() for table in tables.values()), users.tolist()]
    yield pa.RecordBatch.from_pydict(
        {"ranker": pa.array([*tables, ""]), "cells": pa.array(cells, pa.list_(pa.int64()))}
    )


def _tables(known: Sequences, later: Sequences, shared: _Shared) -> dict[str, Ints]:
    classes = shared.classes
    value = later.value if later.value is not None else np.empty(0, np.float32)
    truth = np.searchsorted(classes.astype(np.float32), value).astype(np.int64)
    votes = class_votes(shared.vectors, known, classes, later, shared.neighbours)
    said = {
        KNN: np.where(votes.label >= 0, votes.label, shared.usual),
        MAJORITY: np.full(len(truth), shared.usual, np.int64),
    }
    if FM in shared.rankers and isinstance(shared.machine, FmMachine):
        rating = fm_predictions(later, known, shared.machine)
        said[FM] = np.searchsorted((classes[1:] + classes[:-1]) / 2, rating, side="right").astype(np.int64)
    return {ranker: confusion(truth, label, len(classes)) for ranker, label in said.items()}
