"""The train job: choose settings on the validation part, fit what is measured, fit what is published."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.config import Config
from fm_spark.core.constant_steps import POINTWISE
from fm_spark.core.context import ContextFields
from fm_spark.errors import InputError
from fm_spark.events.catalogue import Catalogue, load_catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.parallel import side_by_side
from fm_spark.tables.contracts import EVENTS, ITEMS, TRAINING_HISTORY, VOCABULARY
from fm_spark.tables.runs import events_run_id
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import EVALUATION, PUBLISH, STAGES, VALIDATION, Block, Slices, pack_slices
from fm_spark.training.capacity import check_training
from fm_spark.training.checkpoints import Checkpoints, fingerprint
from fm_spark.training.context import ContextInput, context_input, count_context
from fm_spark.training.ensemble import restore_ensemble
from fm_spark.training.event_data import Users, event_data, find_users, needs_rows, with_rows
from fm_spark.training.event_learner import restore_events
from fm_spark.training.features import Side, context_names, item_features, side_fields
from fm_spark.training.fits import make_fits
from fm_spark.training.models import TrainedModel, library_versions, save_models
from fm_spark.training.ranker import restore_ranker
from fm_spark.training.resolve import METRIC_NAMES, DataSize, block_count, round_count
from fm_spark.training.trainer import Fit, HistoryRow, TrainingData
from fm_spark.training.warm_rows import FieldValues, Layout
from fm_spark.training.warm_start import find_old, warm_settings, warm_start

log = logging.getLogger("fm_spark.train")


@dataclass(frozen=True)
class TrainResult:
    """What the train job made.

    Attributes:
        epochs: epochs that validation chose.
        metrics: validation metrics of the chosen settings.
        hyperparameters: settings in force, auto resolved.
    """

    run_id: str
    model_version: str
    evaluation_version: str
    epochs: int
    metrics: dict[str, float]
    hyperparameters: dict[str, str]


@dataclass(frozen=True)
class StageCounts:
    """Events of each item by stage: int64 [n_items]."""

    liked: dict[str, npt.NDArray[np.int64]]
    not_liked: dict[str, npt.NDArray[np.int64]]

    def seen(self) -> dict[str, npt.NDArray[np.int64]]:
        """Both together."""
        return {stage: liked + self.not_liked[stage] for stage, liked in self.liked.items()}


def train(store: TableStore, config: Config) -> TrainResult:
    """Trains on the events table and writes ``fm_model``, ``fm_parameters`` and ``training_history``.

    Raises:
        TableError: a table is missing or cannot be written.
        InputError: there is nothing to learn from.
        CapacityError: the configuration cannot fit in memory.
        DivergenceError: training left the finite numbers.
    """
    run_id = events_run_id(store, config)
    old = find_old(store, config.train.warm_start, run_id) if config.train.warm_start else None
    if old is not None:
        config = replace(config, train=warm_settings(config.train, old))
    versions = {contract.name: store.version(contract) for contract in (EVENTS, ITEMS, VOCABULARY)}
    events = store.read(EVENTS, versions[EVENTS.name])
    catalogue = load_catalogue(store.read(ITEMS, versions[ITEMS.name]))
    size = data_size(events)
    if size.positives == 0:
        raise InputError("no liked event in the training part; lower events.positive_threshold and run events again")
    check_training(store.spark, config, size, catalogue)
    fields = side_fields(config.train, catalogue)
    features = item_features(catalogue, fields)
    side = features.x if fields else None
    asked = context_input(store, config, events, versions)
    own = fingerprint(run_id, config, size.digest + asked.digest, catalogue_digest(catalogue), library_versions())
    every = (config.train.checkpoint_rounds, config.train.checkpoint_minutes)
    restore = partial(restore_ranker, x=side) if config.train.loss == "softmax" else restore_events
    checkpoints = Checkpoints(store, run_id, own, every, partial(restore_ensemble, restore=restore))
    users = find_users(events) if needs_rows(config.train) else None
    warm = None
    if old is not None:
        warm = warm_start(store, config, events, old, _layout(config, catalogue, users, features, asked.fields))
    slices = _slices(store, config, asked, users, catalogue, size)
    try:
        counts = stage_counts(slices, catalogue.n_items)
        share = min(1.0, config.train.validation_users / max(1, size.users))
        data = TrainingData(slices, counts.liked, side, share, None, count_context(slices, asked.fields), warm)
        if config.train.loss != "softmax":
            of_events = event_data(config.train, slices, users, side, counts.seen(), asked.fields.n_rows)
            data = replace(data, events=of_events)
        tried, fits = make_fits(store.spark.sparkContext, data, config.train, size, checkpoints)
    finally:
        slices.unpersist()
    models = _models(run_id, config, fits, counts, data)
    history = [row for f in (*tried, *fits) for row in f.history]
    side_by_side(
        {
            "models": lambda: save_models(store, config, run_id, catalogue, models, versions),
            "history": lambda: _write_history(store, run_id, models, history),
        }
    )
    checkpoints.clear()
    best = fits[-1]
    return TrainResult(
        run_id, models[1].model_version, models[0].model_version, best.epochs, best.metrics, best.describe()
    )


def _layout(config: Config, catalogue: Catalogue, users: Users | None, side: Side, context: ContextFields) -> Layout:
    """Values of the fields in the order of the machine's rows."""
    return Layout(
        [str(item) for item in catalogue.item_id],
        [FieldValues(part.field, part.names) for part in side.parts],
        [str(user) for user in users.ids] if users is not None else [],
        tuple(config.train.decays) if config.train.decays != "auto" else (),
        tuple(
            FieldValues(name, [UNSEEN, *values])
            for name, values in zip(context_names(context), context.values, strict=True)
        ),
    )


def _models(
    run_id: str, config: Config, fits: list[Fit], counts: StageCounts, data: TrainingData
) -> list[TrainedModel]:
    """The machine that is measured and the one that is published; one and the same without ``train.refit``."""
    last = PUBLISH if config.train.refit else EVALUATION
    return [
        TrainedModel(
            version, purpose, stage, fit, counts.liked[stage], counts.not_liked[stage], data.events, data.context
        )
        for version, purpose, fit, stage in (
            (f"fm-{run_id}-eval", "evaluation", fits[0], EVALUATION),
            (f"fm-{run_id}", "publish", fits[-1], last),
        )
    ]


def data_size(events: DataFrame) -> DataSize:
    """Counts the training part, which the rules of ``auto`` follow from, and digests all events, in one pass."""
    known = F.col("split") == "train"
    liked = known & (F.col("label") > 0)
    content = F.xxhash64("user_id", "item_feature", "position", "value", "label", "weight", "split")
    row = events.agg(
        F.countDistinct(F.when(known, F.col("user_id"))).alias("users"),
        F.count(F.when(known, True)).alias("events"),
        F.count(F.when(liked, True)).alias("positives"),
        F.countDistinct(F.when(liked, F.col("item_feature"))).alias("items"),
        # neither depends on the order of rows; the low halves alone, because a sum of 64-bit hashes overflows
        F.bit_xor(content).alias("xor"),
        F.sum(content.bitwiseAND(F.lit(0xFFFFFFFF))).alias("sum"),
    ).first()
    if row is None:
        return DataSize(0, 0, 0, 0)
    return DataSize(row["users"], row["events"], row["positives"], row["items"], f"{row['xor']}/{row['sum']}")


def catalogue_digest(catalogue: Catalogue) -> str:
    """First 16 hex digits of a sha256 of the items: ids, features and what side features follow from, in order."""
    ids, features = catalogue.item_id.tolist(), catalogue.feature.tolist()
    items = zip(ids, features, catalogue.genres, catalogue.year, catalogue.attributes, strict=True)
    return hashlib.sha256(json.dumps(list(items), sort_keys=True).encode()).hexdigest()[:16]


def _slices(
    store: TableStore, config: Config, asked: ContextInput, users: Users | None, catalogue: Catalogue, size: DataSize
) -> Slices:
    blocks = block_count(config.train, size)
    rounds = round_count(config.train, size, blocks)
    what = f"{size.events} events" if config.train.loss in POINTWISE else f"{size.positives} positive events"
    log.info("%s of %d users in %d blocks, %d rounds an epoch", what, size.users, blocks, rounds)
    partitions = max(1, min(blocks, store.spark.sparkContext.defaultParallelism))
    cut = (config.train.validation_fraction, config.events.min_positives)
    values = config.train.loss == "squared"
    events = with_rows(asked.events, users) if users else asked.events
    return pack_slices(events, catalogue.feature_to_item, blocks, rounds, partitions, cut, values, asked.fields)


def stage_counts(slices: Slices, n_items: int) -> StageCounts:
    """Counts the events of each item that each stage may see."""

    def count(block: Block) -> npt.NDArray[np.int64]:
        found = []
        for stage in STAGES:
            seen = block.view(stage)
            found += [np.bincount(seen.item[seen.liked == flag], minlength=n_items) for flag in (0, 1)]
        return np.stack(found)

    total = np.zeros((2 * len(STAGES), n_items), np.int64)
    for rdd in slices.rdds:
        part = rdd.map(count).treeAggregate(None, _plus, _plus, 2)
        total += part if part is not None else 0
    return StageCounts(
        {stage: total[2 * s + 1] for s, stage in enumerate(STAGES)},
        {stage: total[2 * s] for s, stage in enumerate(STAGES)},
    )


def _plus(a: npt.NDArray[np.int64] | None, b: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _write_history(store: TableStore, run_id: str, models: list[TrainedModel], history: list[HistoryRow]) -> None:
    version = {
        VALIDATION: models[0].model_version,
        EVALUATION: models[0].model_version,
        PUBLISH: models[1].model_version,
    }
    rows = []
    for row in history:
        metrics = row.metrics or {}
        values = {
            "model_version": version[row.stage],
            "run_id": run_id,
            **{name: getattr(row, name) for name in ("stage", "candidate", "epoch", "round")},
            **{name: metrics.get(name) for name in METRIC_NAMES},
            **vars(row.record),
        }
        rows.append(tuple(values[name] for name in TRAINING_HISTORY.column_names))
    store.write(pd.DataFrame(rows, columns=TRAINING_HISTORY.column_names), TRAINING_HISTORY, run_id)
