"""Predictions of single events after the training part, beside what anybody could say without a machine.

Rated are all events that are not in the training part: the held-out positives and, with the splits by time, whatever
else came later, liked or not. (``events.split = "random"`` holds out positives alone; with a low
``events.positive_threshold`` every event is one.)
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.core.constant_steps import POINTWISE
from fm_spark.core.fm_machine import FmMachine, fm_predictions
from fm_spark.core.prediction_metrics import LabelSums, RatingSums, label_sums, rating_sums
from fm_spark.core.queries import Ranker
from fm_spark.core.sequences import TRAIN, Sequences, select
from fm_spark.evaluation.evaluate import FM
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks

GLOBAL_MEAN, USER_ITEM_MEAN, CONSTANT = "global_mean", "user_item_mean", "constant"
PREDICTED = "predicted_events"
# means of few ratings are drawn to zero as if by so many more ratings
_DAMPING = 5.0
_UNIT = 2.0**20

Sums = RatingSums | LabelSums


class Baseline(NamedTuple):
    """Means of the training part, unweighted.

    Attributes:
        mean: of the ratings; share of likes: of the labels.
        item: float64 [n_items], sum(value - mean) / (events + 5) of each item; 0 for an item without events.
    """

    mean: float
    liked: float
    item: npt.NDArray[np.float64]


class Predicted(NamedTuple):
    """What was measured: the sums of every predictor, and how many users have an event that was predicted."""

    sums: dict[str, Sums]
    users: int
    users_without: int


class _Shared(NamedTuple):
    machine: FmMachine
    baseline: Baseline
    feature_to_item: npt.NDArray[np.int32]


def later_predictions(events: DataFrame, machine: Ranker, catalogue: Catalogue) -> Predicted | None:
    """Predicts every event that is not in the training part; None when there is none, or the machine only ranks.

    Bags hold the user's training events. The result has the same bits whatever the partitions.

    Args:
        events: the ``events`` table with its splits.
        machine: fitted on the training part only.
    """
    if not isinstance(machine, FmMachine) or machine.loss not in POINTWISE:
        return None
    spark = events.sparkSession
    shared = _Shared(machine, baseline(events, catalogue), catalogue.feature_to_item)
    with broadcast(spark, shared) as sent:
        ordered = ordered_events(events, partitions_for(spark, catalogue), True, machine.context)
        parts = ordered.mapInArrow(partial(_measure, sent), "payload binary").rdd.map(lambda row: _load(row[0]))
        found = parts.treeAggregate(None, _merge, _merge, 2)
    return found if found is not None and found.users else None


def baseline(events: DataFrame, catalogue: Catalogue) -> Baseline:
    """The means that predictions are compared with, from exact sums over the training part."""
    value = F.round(F.col("value") * _UNIT).cast("bigint")
    rows = (
        events.where(F.col("split") == "train")
        .groupBy("item_feature")
        .agg(F.sum(value).alias("value"), F.sum(F.col("label").cast("bigint")).alias("liked"), F.count("*").alias("n"))
        .toPandas()
    )
    n = max(1, int(rows["n"].sum()))
    mean, liked = int(rows["value"].sum()) / _UNIT / n, int(rows["liked"].sum()) / n
    item = np.zeros(catalogue.n_items)
    item[catalogue.feature_to_item[rows["item_feature"].to_numpy()]] = (
        rows["value"].to_numpy(np.float64) / _UNIT - mean * rows["n"].to_numpy(np.float64)
    ) / (rows["n"].to_numpy(np.float64) + _DAMPING)
    return Baseline(mean, liked, item)


def user_item_means(later: Sequences, known: Sequences, base: Baseline) -> npt.NDArray[np.float64]:
    """Predicted ratings mean + b_item + b_user, float64 [n_events].

    b_user = sum over the user's training events of (value - mean - b_item) / (events + 5).
    """
    owner = np.repeat(np.arange(known.n_users), np.diff(known.ptr))
    left = (known.value if known.value is not None else 0.0) - base.mean - base.item[known.item]
    of_user = np.bincount(owner, left, minlength=known.n_users) / (np.diff(known.ptr) + _DAMPING)
    predicted: npt.NDArray[np.float64] = base.mean + base.item[later.item] + np.repeat(of_user, np.diff(later.ptr))
    return predicted


def _measure(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    total: Predicted | None = None
    for block in user_blocks(batches, shared.feature_to_item, shared.machine.context):
        total = _merge(total, _of_block(block, shared))
    if total is not None:
        yield pa.RecordBatch.from_pydict({"payload": pa.array([_dump(total)], pa.binary())})


def _of_block(block: Sequences, shared: _Shared) -> Predicted:
    training = block.part == TRAIN
    known, later = select(block, training), select(block, ~training)
    said = fm_predictions(later, known, shared.machine)
    asked = int(np.count_nonzero(np.diff(later.ptr)))
    if shared.machine.loss == "squared" and later.value is not None:
        constant = np.full(len(later.item), shared.baseline.mean)
        sums: dict[str, Sums] = {
            FM: rating_sums(said, later.value),
            USER_ITEM_MEAN: rating_sums(_clipped(user_item_means(later, known, shared.baseline), shared), later.value),
            GLOBAL_MEAN: rating_sums(constant, later.value),
        }
    else:
        constant = np.full(len(later.item), shared.baseline.liked)
        sums = {FM: label_sums(said, later.liked), CONSTANT: label_sums(constant, later.liked)}
    return Predicted(sums, asked, block.n_users - asked)


def _clipped(predicted: npt.NDArray[np.float64], shared: _Shared) -> npt.NDArray[np.float64]:
    limits = shared.machine.limits
    return predicted if limits is None else np.clip(predicted, *limits)


def _merge(a: Predicted | None, b: Predicted | None) -> Predicted | None:
    if a is None or b is None:
        return b if a is None else a
    sums: dict[str, Sums] = {name: one.merge(b.sums[name]) for name, one in a.sums.items()}  # type: ignore[arg-type]
    return Predicted(sums, a.users + b.users, a.users_without + b.users_without)


def _dump(value: Predicted) -> bytes:
    return pickle.dumps(value, protocol=5)


def _load(payload: bytes | bytearray) -> Predicted:
    value: Predicted = pickle.loads(bytes(payload))
    return value
