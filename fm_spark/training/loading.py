"""Trained machines out of their tables, ready to rank and to predict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from fm_spark.core.context import ContextFields
from fm_spark.core.fm_events import Fields
from fm_spark.core.fm_machine import FmMachine, Ids, assemble
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker
from fm_spark.core.side import SideFeatures, compose
from fm_spark.core.time_fields import TIME_FIELDS
from fm_spark.errors import TableError
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.tables.contracts import EVENTS, FM_MODEL, FM_PARAMETERS
from fm_spark.tables.store import TableStore
from fm_spark.training.features import (
    BAG,
    ITEM,
    OF_USER,
    USER,
    Side,
    context_names,
    history_fields,
    item_features,
    ordered_fields,
)
from fm_spark.training.models import GREATEST_RATING, LEAST_RATING

Rows = dict[str, pd.DataFrame]


def load_machine(
    store: TableStore, model_version: str, catalogue: Catalogue, learnt: npt.NDArray[np.bool_] | None = None
) -> Ranker:
    """Reads a machine and composes its item rows.

    Args:
        learnt: bool [n_items], false for items that came after the training: they get rows of zeros, and what their
            side features say. ``None``: all are the model's.

    Raises:
        TableError: there is no such model, or it lacks rows for items of the catalogue.
    """
    of_model = F.col("model_version") == F.lit(model_version)
    columns = ("model_version", "loss", "k", "w0", "decays", "hyperparameters")
    described = store.read(FM_MODEL).where(of_model).select(*columns).first()
    if described is None:
        raise TableError(f"no model {model_version} in {store.path(FM_MODEL)}; run ./spark-submit.sh train first")
    rows = _collect(store.read(FM_PARAMETERS).where(of_model))
    if learnt is not None:
        rows = _with_later(rows, catalogue, learnt, int(described["k"]))
    if described["loss"] == "softmax":
        return _ranker(described, rows, catalogue)
    whole_ids = store.read(EVENTS).schema["user_id"].dataType.simpleString() == "bigint" if USER in rows else True
    return _event_machine(described, rows, catalogue, whole_ids)


def item_biases(store: TableStore, model_version: str, catalogue: Catalogue) -> npt.NDArray[np.float64]:
    """The linear weights of the items alone, without those of their side features; float64 [n_items].

    Raises:
        TableError: the model lacks rows for items of the catalogue.
    """
    of_items = (F.col("model_version") == F.lit(model_version)) & (F.col("field") == F.lit(ITEM))
    rows = store.read(FM_PARAMETERS).where(of_items).select("value", "bias").toPandas().set_index("value")["bias"]
    bias = rows.reindex([str(i) for i in catalogue.item_id])
    if bias.isna().any():
        raise TableError(f"model {model_version} has no parameters for some items; run ./spark-submit.sh train again")
    return bias.to_numpy(np.float64)


def _ranker(described: Row, rows: Rows, catalogue: Catalogue) -> Machine:
    k, decays, version = int(described["k"]), tuple(described["decays"]), described["model_version"]
    items = [str(i) for i in catalogue.item_id]
    own, own_bias = _table(rows, ITEM, items, k, version)
    history = [_table(rows, field, items, k, version)[0] for field in history_fields(decays)]
    side = item_features(catalogue, ordered_fields(rows))
    if side.parts:
        factors, bias = _side_table(rows, side, k, version)
        own, own_bias = compose(SideFeatures(side.x, factors, bias.astype(np.float32)), own, own_bias)
    stacked = np.stack(history).reshape(len(decays), 2, catalogue.n_items, k)
    context, factors, _ = _context(rows, k, version)
    of_context = factors if context.n_rows else None
    return Machine(np.array(decays), stacked, own, own_bias.astype(np.float32), context, of_context)


def _event_machine(described: Row, rows: Rows, catalogue: Catalogue, whole_ids: bool) -> FmMachine:
    k, version = int(described["k"]), described["model_version"]
    items = [str(i) for i in catalogue.item_id]
    ids = _ids(rows[USER].index, whole_ids) if USER in rows else np.empty(0, np.int64)
    side = item_features(catalogue, ordered_fields(rows))
    bag = items if BAG in rows else []
    parts = [
        _table(rows, USER, [str(i) for i in ids], k, version),
        _table(rows, ITEM, items, k, version),
        _side_table(rows, side, k, version),
        _table(rows, BAG, bag, k, version),
    ]
    context, factors, bias = _context(rows, k, version)
    parts.insert(3, (factors, bias))  # the rows lie in the order of Fields: the bag is the last
    linear = np.concatenate([*(bias for _, bias in parts), [described["w0"]]]).astype(np.float32)
    parameters = FmParameters(np.concatenate([factors for factors, _ in parts]), linear)
    fields = Fields(len(ids), len(items), len(side.names), len(bag), context.n_rows)
    settings = described["hyperparameters"]
    limits = None
    if LEAST_RATING in settings:
        limits = float(settings[LEAST_RATING]), float(settings[GREATEST_RATING])
    return assemble(described["loss"], parameters, fields, side.x if side.parts else None, ids, limits, context)


def _side_table(
    rows: Rows, side: Side, k: int, model_version: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """:func:`_table` of all side fields, in the order of their features."""
    tables = [_table(rows, part.field, part.names, k, model_version) for part in side.parts]
    nothing = np.zeros((0, k), np.float32), np.zeros(0)
    factors, bias = zip(*tables, strict=True) if tables else ([nothing[0]], [nothing[1]])
    return np.concatenate(factors), np.concatenate(bias)


def _context(
    rows: Rows, k: int, version: str
) -> tuple[ContextFields, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The context fields that the model has, with their vectors and biases."""
    time = tuple(name for name in TIME_FIELDS if name in rows)
    user = tuple(sorted(name.removeprefix(OF_USER) for name in rows if name.startswith(OF_USER)))
    names = context_names(ContextFields(time, user))
    values = [sorted(value for value in rows[name].index if value != UNSEEN) for name in names]
    parts = [_table(rows, name, [UNSEEN, *listed], k, version) for name, listed in zip(names, values, strict=True)]
    factors = np.concatenate([np.zeros((0, k), np.float32), *(factors for factors, _ in parts)])
    bias = np.concatenate([np.zeros(0), *(bias for _, bias in parts)])
    return ContextFields(time, user, tuple(map(tuple, values))), factors, bias


def _ids(values: pd.Index[str], whole: bool) -> Ids:
    """The users' ids in ascending order, as in the input."""
    known = [value for value in values if value != UNSEEN]
    return np.sort(np.array(known, np.int64)) if whole else np.array(sorted(known), object)


def _collect(parameters: DataFrame) -> dict[str, pd.DataFrame]:
    frame = parameters.select("field", "value", "bias", "factors").toPandas()
    return {str(field): group.set_index("value") for field, group in frame.groupby("field")}


def _with_later(rows: Rows, catalogue: Catalogue, learnt: npt.NDArray[np.bool_], k: int) -> Rows:
    """The rows with zeros for items that the model does not know, and for values of side fields that only they have."""
    later = [str(item) for item in catalogue.item_id[~learnt]]
    values = {field: later for field in rows if field in (ITEM, BAG) or field.startswith("history_")}
    values |= {part.field: part.names for part in item_features(catalogue, ordered_fields(rows)).parts}
    grown = dict(rows)
    for field, names in values.items():
        missing = [name for name in names if name not in rows[field].index]
        zeros = {"field": field, "bias": 0.0, "factors": [np.zeros(k, np.float32)] * len(missing)}
        grown[field] = pd.concat([rows[field], pd.DataFrame(zeros, index=pd.Index(missing, name="value"))])
    return grown


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
