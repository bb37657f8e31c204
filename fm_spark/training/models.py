"""Trained machines in tables: ``fm_model`` and ``fm_parameters``."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark import __version__
from fm_spark.config import Config
from fm_spark.core.machine import Machine
from fm_spark.core.side import SideFeatures, compose, own_rows
from fm_spark.errors import TableError
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.tables.contracts import FM_MODEL, FM_PARAMETERS, VOCABULARY
from fm_spark.tables.store import TableStore
from fm_spark.training.features import GENRE, ITEM, genre_features, history_fields, vocabulary_of
from fm_spark.training.trainer import Fit


@dataclass(frozen=True)
class TrainedModel:
    """A machine that is to be saved.

    Attributes:
        purpose: publish or evaluation.
        liked, not_liked: int64 [n_items], training events of each item that it was fitted on.
    """

    model_version: str
    purpose: str
    fit: Fit
    liked: npt.NDArray[np.int64]
    not_liked: npt.NDArray[np.int64]


def save_models(
    store: TableStore,
    config: Config,
    run_id: str,
    catalogue: Catalogue,
    models: list[TrainedModel],
    input_versions: dict[str, int],
) -> None:
    """Writes the machines of a run, parameters first: a model that ``fm_model`` lists is complete."""
    wanted = {model.fit.recipe.settings.decays for model in models}
    features = {decays: vocabulary_of(store, catalogue, decays, run_id) for decays in sorted(wanted)}
    rows = [_parameter_rows(model, catalogue, features[model.fit.recipe.settings.decays]) for model in models]
    parameters = pd.concat(rows, ignore_index=True)
    parameters["run_id"] = run_id
    store.write(parameters, FM_PARAMETERS, run_id)
    # the version that holds the history fields, which were added above
    versions = {**input_versions, VOCABULARY.name: store.version(VOCABULARY)}
    described = [_model_row(config, run_id, model, versions) for model in models]
    store.write(pd.DataFrame(described, columns=FM_MODEL.column_names), FM_MODEL, run_id)


def _parameter_rows(model: TrainedModel, catalogue: Catalogue, features: dict[str, dict[str, int]]) -> pd.DataFrame:
    """One row per feature, in the columns of ``fm_parameters`` but the run."""
    parameters, side = model.fit.parameters, model.fit.side
    items = [str(i) for i in catalogue.item_id]
    own, own_bias = parameters.item_factors, parameters.bias.astype(np.float64)
    if side is not None:
        own, own_bias = own_rows(side, parameters.item_factors, parameters.bias)
    seen = model.liked + model.not_liked
    tables = [(ITEM, items, own_bias, own, seen)]
    history = parameters.factors[: -parameters.n_items].reshape(-1, parameters.n_items, own.shape[1])
    for table, field in enumerate(history_fields(model.fit.recipe.settings.decays)):
        count = model.liked if table % 2 else model.not_liked
        tables.append((field, items, np.zeros(len(items)), history[table], count))
    if side is not None:
        names = genre_features(catalogue).names
        tables.append((GENRE, names, side.bias.astype(np.float64), side.factors, (side.x != 0).T @ seen))
    unseen = np.zeros((1, own.shape[1]), np.float32)
    tables += [(field, [UNSEEN], np.zeros(1), unseen, np.zeros(1, np.int64)) for field, *_ in list(tables)]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model_version": model.model_version,
                    "field": field,
                    "value": values,
                    "feature": [features[field][value] for value in values],
                    "bias": bias,
                    "factors": list(factors),
                    "count": count,
                }
            )
            for field, values, bias, factors, count in tables
        ],
        ignore_index=True,
    )


def _model_row(config: Config, run_id: str, model: TrainedModel, input_versions: dict[str, int]) -> tuple[object, ...]:
    fit = model.fit
    values = {
        "model_version": model.model_version,
        "run_id": run_id,
        "created_at": datetime.now(UTC),
        "purpose": model.purpose,
        "loss": config.train.loss,
        "k": config.train.k,
        "w0": 0.0,  # cancels in every softmax
        "epochs": fit.epochs,
        "decays": list(fit.recipe.settings.decays),
        "hyperparameters": fit.describe(),
        "metrics": {name: float(value) for name, value in fit.metrics.items()},
        "input_versions": input_versions,
        "library_versions": library_versions(),
        "config": config.to_json(),
    }
    return tuple(values[name] for name in FM_MODEL.column_names)


def library_versions() -> dict[str, str]:
    """Versions of what computes the parameters; equal bits are promised for equal ones."""
    names = ("pyspark", "delta-spark", "numpy", "numba", "scipy", "pyarrow")
    versions = {name: version(name) for name in names}
    return {"fm_spark": __version__, "python": platform.python_version(), "machine": platform.machine(), **versions}


def load_machine(store: TableStore, model_version: str, catalogue: Catalogue) -> Machine:
    """Reads a machine and composes its item rows.

    Raises:
        TableError: there is no such model, or it lacks rows for items of the catalogue.
    """
    of_model = F.col("model_version") == F.lit(model_version)
    described = store.read(FM_MODEL).where(of_model).select("k", "decays").first()
    if described is None:
        raise TableError(f"no model {model_version} in {store.path(FM_MODEL)}; run ./spark-submit.sh train first")
    k, decays = int(described["k"]), tuple(described["decays"])
    rows = _collect(store.read(FM_PARAMETERS).where(of_model))
    own, own_bias = _table(rows, ITEM, [str(i) for i in catalogue.item_id], k, model_version)
    history = [
        _table(rows, field, [str(i) for i in catalogue.item_id], k, model_version)[0]
        for field in history_fields(decays)
    ]
    if GENRE in rows:
        names, x = genre_features(catalogue)
        factors, bias = _table(rows, GENRE, names, k, model_version)
        side = SideFeatures(x, factors, bias.astype(np.float32))
        own, own_bias = compose(side, own, own_bias)
    stacked = np.stack(history).reshape(len(decays), 2, catalogue.n_items, k)
    return Machine(np.array(decays), stacked, own, own_bias.astype(np.float32))


def _collect(parameters: DataFrame) -> dict[str, pd.DataFrame]:
    frame = parameters.select("field", "value", "bias", "factors").toPandas()
    return {str(field): group.set_index("value") for field, group in frame.groupby("field")}


def _table(
    rows: dict[str, pd.DataFrame], field: str, values: list[str], k: int, model_version: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Vectors (float32 [n, k]) and biases (float64 [n]) of a field in the order of ``values``."""
    if not values:
        return np.zeros((0, k), np.float32), np.zeros(0)
    found = rows[field].reindex(values) if field in rows else None
    if found is None or found["bias"].isna().any():
        raise TableError(
            f"model {model_version} has no parameters for some values of field {field}; it belongs to other items, "
            "run ./spark-submit.sh train again"
        )
    return np.stack(found["factors"].tolist()).astype(np.float32), found["bias"].to_numpy(np.float64)
