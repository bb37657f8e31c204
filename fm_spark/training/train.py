"""The train job: choose settings on the validation part, fit what is measured, fit what is published."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from fm_spark.config import Config
from fm_spark.core.constant_steps import POINTWISE
from fm_spark.parallel import side_by_side
from fm_spark.tables.contracts import TRAINING_HISTORY
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import EVALUATION, PUBLISH, VALIDATION, Slices, pack_slices
from fm_spark.training.checkpoints import Checkpoints, fingerprint
from fm_spark.training.context import count_context
from fm_spark.training.ensemble import restore_ensemble
from fm_spark.training.event_data import event_data
from fm_spark.training.event_learner import restore_events
from fm_spark.training.fits import make_fits
from fm_spark.training.models import TrainedModel, library_versions, save_models
from fm_spark.training.ranker import restore_ranker
from fm_spark.training.resolve import METRIC_NAMES, block_count, round_count, shares_users
from fm_spark.training.run_data import RunData, catalogue_digest, read_run
from fm_spark.training.stage_counts import StageCounts, stage_counts
from fm_spark.training.trainer import Fit, HistoryRow, TrainingData

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


def train(store: TableStore, config: Config) -> TrainResult:
    """Trains on the events table and writes ``fm_model``, ``fm_parameters`` and ``training_history``.

    Raises:
        TableError: a table is missing or cannot be written.
        InputError: there is nothing to learn from.
        CapacityError: the configuration cannot fit in memory.
        DivergenceError: training left the finite numbers.
    """
    run = read_run(store, config)
    config, run_id = run.config, run.run_id
    own = fingerprint(run_id, config, run.events_digest, catalogue_digest(run.catalogue), library_versions())
    every = (config.train.checkpoint_rounds, config.train.checkpoint_minutes)
    restore = partial(restore_ranker, x=run.side) if config.train.loss == "softmax" else restore_events
    checkpoints = Checkpoints(store, run_id, own, every, partial(restore_ensemble, restore=restore))
    slices = _slices(store, run)
    try:
        counts = stage_counts(slices, run.catalogue.n_items)
        data = _training_data(run, slices, counts)
        tried, fits = make_fits(store.spark.sparkContext, data, config.train, run.size, checkpoints)
    finally:
        slices.unpersist()
    models = _models(run_id, config, fits, counts, data)
    history = [row for f in (*tried, *fits) for row in f.history]
    side_by_side(
        {
            "models": lambda: save_models(store, config, run_id, run.catalogue, models, run.versions),
            "history": lambda: _write_history(store, run_id, models, history),
        }
    )
    checkpoints.clear()
    best = fits[-1]
    return TrainResult(
        run_id, models[1].model_version, models[0].model_version, best.epochs, best.metrics, best.describe()
    )


def _slices(store: TableStore, run: RunData) -> Slices:
    config, size = run.config, run.size
    blocks = block_count(config.train, size)
    rounds = round_count(config.train, size, blocks)
    what = f"{size.events} events" if config.train.loss in POINTWISE else f"{size.positives} positive events"
    log.info("%s of %d users in %d blocks, %d rounds an epoch", what, size.users, blocks, rounds)
    partitions = max(1, min(blocks, store.spark.sparkContext.defaultParallelism))
    cut = (config.train.validation_fraction, config.events.min_positives)
    values = config.train.loss == "squared"
    events, context = run.asked.events, run.asked.fields
    ids = run.users.ids if run.users is not None else None
    items, parts = run.catalogue.feature_to_item, rounds if shares_users(config.train, size, blocks, rounds) else 1
    return pack_slices(events, items, blocks, rounds, partitions, cut, values, context, ids, parts)


def _training_data(run: RunData, slices: Slices, counts: StageCounts) -> TrainingData:
    train, context = run.config.train, run.asked.fields
    share = min(1.0, train.validation_users / max(1, run.size.users))
    data = TrainingData(slices, counts.liked, run.side, share, None, count_context(slices, context), run.warm)
    if train.loss == "softmax":
        return data
    return replace(data, events=event_data(train, slices, run.users, run.side, counts.seen(), context.n_rows))


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
