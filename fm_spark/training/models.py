"""Trained machines in tables: ``fm_model`` and ``fm_parameters``."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import pandas as pd

from fm_spark import __version__
from fm_spark.config import Config
from fm_spark.core.side import own_rows
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.tables.contracts import FM_MODEL, FM_PARAMETERS, VOCABULARY
from fm_spark.tables.runs import model_records
from fm_spark.tables.store import TableStore
from fm_spark.training.context import ContextData
from fm_spark.training.event_data import EventData
from fm_spark.training.event_learner import EventLearnt
from fm_spark.training.features import (
    BAG,
    GENRE,
    ITEM,
    USER,
    Side,
    context_names,
    history_fields,
    item_features,
    side_fields,
    vocabulary_of,
)
from fm_spark.training.ranker import RankerLearnt
from fm_spark.training.trainer import Fit

LEAST_RATING, GREATEST_RATING = "least_rating", "greatest_rating"
"""Hyperparameters of a rating model: predictions are clipped to this range."""


@dataclass(frozen=True)
class TrainedModel:
    """A machine that is to be saved.

    Attributes:
        purpose: publish or evaluation.
        stage: what it was fitted on.
        liked, not_liked: int64 [n_items], training events of each item that it was fitted on.
        events: what a machine over single events was fitted on besides; None for ``softmax``.
        context: its context fields.
    """

    model_version: str
    purpose: str
    stage: str
    fit: Fit
    liked: npt.NDArray[np.int64]
    not_liked: npt.NDArray[np.int64]
    events: EventData | None = None
    context: ContextData = field(default_factory=ContextData)


@dataclass(frozen=True)
class _Table:
    """The rows of one field: values, linear weights, factors and training events of each."""

    field: str
    values: list[str]
    bias: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float32]
    count: npt.NDArray[np.int64]


def save_models(
    store: TableStore,
    config: Config,
    run_id: str,
    catalogue: Catalogue,
    models: list[TrainedModel],
    input_versions: dict[str, int],
) -> None:
    """Writes the machines of a run, parameters first: a model that ``fm_model`` lists is complete."""
    side = item_features(catalogue, side_fields(config.train, catalogue))
    tables = [_tables(model, catalogue, side) for model in models]
    own = {table.field: table.values for of_model in tables for table in of_model if table.field not in (ITEM, GENRE)}
    features = vocabulary_of(store, own, run_id)
    rows = [_rows(model, of_model, features) for model, of_model in zip(models, tables, strict=True)]
    parameters = pd.concat(rows, ignore_index=True)
    parameters["run_id"] = run_id
    store.write(parameters, FM_PARAMETERS, run_id)
    # the version that holds the fields of the machine, which were added above
    versions = {**input_versions, VOCABULARY.name: store.version(VOCABULARY)}
    described = [_model_row(config, run_id, model, versions) for model in models]
    _keep_times(described, store, run_id)
    store.write(pd.DataFrame(described, columns=FM_MODEL.column_names), FM_MODEL, run_id)


def _keep_times(described: list[dict[str, object]], store: TableStore, run_id: str) -> None:
    """Gives a model that the run saves again, made in the same way, the time at which it was first saved.

    So a run that is repeated leaves the same rows, and its model does not become the newest one.
    """
    if not store.exists(FM_MODEL):
        return
    made = ("model_version", "epochs", "hyperparameters", "metrics", "library_versions", "config")
    for saved in model_records(store, run_id=run_id):
        for model in described:
            if all(model[name] == getattr(saved, name) for name in made):
                model["created_at"] = saved.created_at


def _tables(model: TrainedModel, catalogue: Catalogue, side: Side) -> list[_Table]:
    learnt = model.fit.learnt
    if isinstance(learnt, EventLearnt) and model.events is not None:
        return _event_tables(model, learnt, model.events, catalogue, side)
    if isinstance(learnt, RankerLearnt):
        return _ranker_tables(model, learnt, catalogue, side)
    raise TypeError(f"no tables for {type(learnt).__name__}")


def _ranker_tables(model: TrainedModel, learnt: RankerLearnt, catalogue: Catalogue, side: Side) -> list[_Table]:
    parameters, of_side = learnt
    items = [str(i) for i in catalogue.item_id]
    own, own_bias = parameters.item_factors, parameters.bias.astype(np.float64)
    if of_side is not None:
        own, own_bias = own_rows(of_side, parameters.item_factors, parameters.bias)
    seen = model.liked + model.not_liked
    tables = [_Table(ITEM, items, own_bias, own, seen)]
    decays = model.fit.recipe.settings.decays
    history = parameters.history(len(decays)).reshape(-1, parameters.n_items, own.shape[1])
    for table, name in enumerate(history_fields(decays)):
        count = model.liked if table % 2 else model.not_liked
        tables.append(_Table(name, items, np.zeros(len(items)), history[table], count))
    if of_side is not None:
        for name, names, place in side.parts:
            bias, count = of_side.bias[place].astype(np.float64), _count(side, place, seen)
            tables.append(_Table(name, names, bias, of_side.factors[place], count))
    of_context = parameters.context(len(decays))
    return tables + _context_tables(model, of_context, np.zeros(len(of_context)))


def _count(side: Side, place: slice, seen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Training events of items with each of these side features, int64."""
    counts: npt.NDArray[np.int64] = (side.x[:, place] != 0).T @ seen
    return counts


def _event_tables(
    model: TrainedModel, learnt: EventLearnt, data: EventData, catalogue: Catalogue, side: Side
) -> list[_Table]:
    fields, seen = data.fields, model.liked + model.not_liked
    factors, linear = learnt.parameters.factors, learnt.parameters.linear.astype(np.float64)
    items = [str(i) for i in catalogue.item_id]

    def table(field: str, values: list[str], begin: int, count: npt.NDArray[np.int64]) -> _Table:
        own = slice(begin, begin + len(values))
        return _Table(field, values, linear[own], factors[own], count)

    tables = [table(ITEM, items, fields.item_offset, seen)]
    if fields.n_users:
        tables.append(table(USER, [str(i) for i in data.ids], 0, data.events_of_users(model.stage)))
    for name, names, place in side.parts:
        tables.append(table(name, names, fields.side_offset + place.start, _count(side, place, seen)))
    if fields.n_bag:
        tables.append(table(BAG, items, fields.bag_offset, seen))
    own = slice(fields.context_offset, fields.bag_offset)
    return tables + _context_tables(model, factors[own], linear[:-1][own])


def _context_tables(
    model: TrainedModel, factors: npt.NDArray[np.float32], bias: npt.NDArray[np.float64]
) -> list[_Table]:
    """One table a context field; its first row is that of the values that it does not list."""
    fields, tables = model.context.fields, []
    for name, offset, values in zip(context_names(fields), fields.offsets.tolist(), fields.values, strict=True):
        own = slice(offset, offset + len(values) + 1)
        tables.append(_Table(name, [UNSEEN, *values], bias[own], factors[own], model.context.seen[model.stage][own]))
    return tables


def _rows(model: TrainedModel, tables: list[_Table], features: dict[str, dict[str, int]]) -> pd.DataFrame:
    """One row per feature, in the columns of ``fm_parameters`` but the run.

    A value that training has not seen stands for nothing, zeros, unless items, users or times that are
    not known have trained it.
    """
    zeros = np.zeros((1, tables[0].factors.shape[1]), np.float32)
    untrained = [table.field for table in tables if UNSEEN not in table.values]
    unseen = [_Table(name, [UNSEEN], np.zeros(1), zeros, np.zeros(1, np.int64)) for name in untrained]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model_version": model.model_version,
                    "field": table.field,
                    "value": table.values,
                    "feature": [features[table.field][value] for value in table.values],
                    "bias": table.bias,
                    "factors": list(table.factors),
                    "count": table.count,
                }
            )
            for table in (*tables, *unseen)
        ],
        ignore_index=True,
    )


def _model_row(config: Config, run_id: str, model: TrainedModel, input_versions: dict[str, int]) -> dict[str, object]:
    fit = model.fit
    return {
        "model_version": model.model_version,
        "run_id": run_id,
        "created_at": datetime.now(UTC),
        "purpose": model.purpose,
        "loss": config.train.loss,
        "k": config.train.k * config.train.ensemble,
        "w0": fit.learnt.parameters.w0 if isinstance(fit.learnt, EventLearnt) else 0.0,  # cancels in every softmax
        "epochs": fit.epochs,
        "decays": list(getattr(fit.recipe.settings, "decays", ())),
        "hyperparameters": {
            **fit.describe(),
            **_rating_range(config, model),
            "ensemble": str(config.train.ensemble),
            "optimizer": config.train.optimizer,
        },
        "metrics": {name: float(value) for name, value in fit.metrics.items()},
        "input_versions": input_versions,
        "library_versions": library_versions(),
        "config": config.to_json(),
    }


def _rating_range(config: Config, model: TrainedModel) -> dict[str, str]:
    if config.train.loss != "squared" or model.events is None:
        return {}
    totals = model.events.totals[model.stage]
    return {LEAST_RATING: repr(totals.least), GREATEST_RATING: repr(totals.greatest)}


def library_versions() -> dict[str, str]:
    """Versions of what computes the parameters; equal bits are promised for equal ones."""
    names = ("pyspark", "delta-spark", "numpy", "numba", "scipy", "pyarrow")
    versions = {name: version(name) for name in names}
    return {"fm_spark": __version__, "python": platform.python_version(), "machine": platform.machine(), **versions}
