"""Trained machines out of their tables, ready to rank and to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

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
from fm_spark.tables.local import Where
from fm_spark.tables.runs import ModelRecord, model_records
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


class _Part(NamedTuple):
    """Rows of one field that lie together.

    Attributes:
        values: text, one a row.
        bias: float64 [n]; factors: float32 [n, k].
    """

    values: pa.Array
    bias: npt.NDArray[np.float64]
    factors: npt.NDArray[np.float32]


class _Field(list[_Part]):
    """The rows of one field, as they came: a model is most of what a process holds, and is not copied in between."""

    def values(self) -> list[str]:
        """The values of all rows."""
        return [value for part in self for value in part.values.to_pylist()]


Rows = dict[str, _Field]


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
    found = model_records(store, model_version=model_version)
    if not found:
        raise TableError(f"no model {model_version} in {store.path(FM_MODEL)}; run ./spark-submit.sh train first")
    described = found[0]
    rows = _read_fields(store, {"model_version": model_version})
    if learnt is not None:
        rows = _with_later(rows, catalogue, learnt, described.k)
    if described.loss == "softmax":
        return _ranker(described, rows, catalogue)
    whole_ids = store.columns(EVENTS)["user_id"].dataType.simpleString() == "bigint" if USER in rows else True
    return _event_machine(described, rows, catalogue, whole_ids)


def item_biases(store: TableStore, model_version: str, catalogue: Catalogue) -> npt.NDArray[np.float64]:
    """The linear weights of the items alone, without those of their side features; float64 [n_items].

    Raises:
        TableError: the model lacks rows for items of the catalogue.
    """
    of_items = {"model_version": model_version, "field": ITEM}
    rows = store.rows(FM_PARAMETERS, columns=("value", "bias"), where=of_items)
    known = pd.Series(rows["bias"].to_numpy(), index=rows["value"].to_pylist())
    bias = known.reindex([str(i) for i in catalogue.item_id])
    if bias.isna().any():
        raise TableError(f"model {model_version} has no parameters for some items; run ./spark-submit.sh train again")
    return bias.to_numpy(np.float64)


def _ranker(described: ModelRecord, rows: Rows, catalogue: Catalogue) -> Machine:
    k, decays, version = described.k, tuple(described.decays), described.model_version
    items = _names(catalogue)
    own, own_bias = _table(rows, ITEM, items, k, version)
    fields = history_fields(decays)
    history = np.empty((len(fields), catalogue.n_items, k), np.float32)
    for field, out in zip(fields, history, strict=True):
        _table(rows, field, items, k, version, out)
    side = item_features(catalogue, ordered_fields(rows))
    if side.parts:
        factors, bias = _side_table(rows, side, k, version)
        own, own_bias = compose(SideFeatures(side.x, factors, bias.astype(np.float32)), own, own_bias)
    stacked = history.reshape(len(decays), 2, catalogue.n_items, k)
    context, factors, _ = _context(rows, k, version)
    of_context = factors if context.n_rows else None
    return Machine(np.array(decays), stacked, own, own_bias.astype(np.float32), context, of_context)


def _event_machine(described: ModelRecord, rows: Rows, catalogue: Catalogue, whole_ids: bool) -> FmMachine:
    k, version = described.k, described.model_version
    items = _names(catalogue)
    ids = _ids(rows[USER].values(), whole_ids) if USER in rows else np.empty(0, np.int64)
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
    linear = np.concatenate([*(bias for _, bias in parts), [described.w0]]).astype(np.float32)
    parameters = FmParameters(np.concatenate([factors for factors, _ in parts]), linear)
    fields = Fields(len(ids), len(items), len(side.names), len(bag), context.n_rows)
    settings = described.hyperparameters
    limits = None
    if LEAST_RATING in settings:
        limits = float(settings[LEAST_RATING]), float(settings[GREATEST_RATING])
    return assemble(described.loss, parameters, fields, side.x if side.parts else None, ids, limits, context)


def _names(catalogue: Catalogue) -> pa.Array:
    """The items as the parameters' column ``value`` has them."""
    return pa.array(catalogue.item_id).cast(pa.string())


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
    values = [sorted(value for value in rows[name].values() if value != UNSEEN) for name in names]
    parts = [_table(rows, name, [UNSEEN, *listed], k, version) for name, listed in zip(names, values, strict=True)]
    factors = np.concatenate([np.zeros((0, k), np.float32), *(factors for factors, _ in parts)])
    bias = np.concatenate([np.zeros(0), *(bias for _, bias in parts)])
    return ContextFields(time, user, tuple(map(tuple, values))), factors, bias


def _ids(values: Sequence[str], whole: bool) -> Ids:
    """The users' ids in ascending order, as in the input."""
    known = [value for value in values if value != UNSEEN]
    return np.sort(np.array(known, np.int64)) if whole else np.array(sorted(known), object)


def _read_fields(store: TableStore, where: Where) -> Rows:
    """The parameters whose columns have these values, field by field.

    Raises:
        TableError: there is no table of parameters, or the vectors of a field are not equally long.
    """
    rows: Rows = {}
    for batch in store.batches(FM_PARAMETERS, ("field", "value", "bias", "factors"), where):
        field = batch.column("field")
        for name in pc.unique(field).to_pylist():
            own = pc.indices_nonzero(pc.equal(field, name))
            first, n = own[0].as_py(), len(own)
            together = own[-1].as_py() - first == n - 1
            part = batch.slice(first, n) if together else batch.take(own)
            rows.setdefault(name, _Field()).append(_part(part))
    return rows


def _part(rows: pa.RecordBatch) -> _Part:
    flat = rows.column("factors").flatten().to_numpy(zero_copy_only=False)
    if flat.size % max(rows.num_rows, 1):
        raise TableError("the vectors of a field of fm_parameters are not equally long; run train again")
    factors = flat.astype(np.float32, copy=False).reshape(rows.num_rows, -1)
    return _Part(rows.column("value"), rows.column("bias").to_numpy(), factors)


def _with_later(rows: Rows, catalogue: Catalogue, learnt: npt.NDArray[np.bool_], k: int) -> Rows:
    """The rows with zeros for items that the model does not know, and for values of side fields that only they have."""
    later = [str(item) for item in catalogue.item_id[~learnt]]
    values = {field: later for field in rows if field in (ITEM, BAG) or field.startswith("history_")}
    values |= {part.field: part.names for part in item_features(catalogue, ordered_fields(rows)).parts}
    grown = dict(rows)
    for field, names in values.items():
        known = set(rows[field].values())
        missing = pa.array([name for name in names if name not in known], pa.string())
        zeros = _Part(missing, np.zeros(len(missing)), np.zeros((len(missing), k), np.float32))
        grown[field] = _Field([*rows[field], zeros])
    return grown


def _table(
    rows: Rows,
    field: str,
    values: Sequence[str] | pa.Array,
    k: int,
    model_version: str,
    out: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Vectors (float32 [n, k], in ``out`` if given) and biases (float64 [n]) of a field in the order of ``values``."""
    wanted = pa.array(values, pa.string())
    factors, bias = np.empty((len(wanted), k), np.float32) if out is None else out, np.empty(len(wanted))
    there = np.zeros(len(wanted), np.bool_)
    for part in rows.get(field, ()):
        place = pc.fill_null(pc.index_in(part.values, wanted), -1).to_numpy()
        known = np.flatnonzero(place >= 0)
        own = slice(None) if len(known) == len(place) else known
        to = place[own]
        factors[to], bias[to], there[to] = part.factors[own], part.bias[own], True
    if not there.all():
        raise TableError(
            f"model {model_version} has no parameters for some values of field {field}; it belongs to other items, "
            "run ./spark-submit.sh train again"
        )
    return factors, bias
