"""Rows of an old machine in the place of the random ones: what ``train.warm_start`` starts from.

A row belongs to a (field, value) of ``fm_parameters``. The old machine's row is kept where training has seen the value,
bit for bit; every other row starts as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from fm_spark.core.ensemble import factors_of_members
from fm_spark.core.parameters import Doubles, Floats, Parameters
from fm_spark.core.side import compose
from fm_spark.training.ensemble import EnsembleLearnt
from fm_spark.training.event_learner import EventLearnt
from fm_spark.training.features import BAG, ITEM, USER, history_fields
from fm_spark.training.ranker import RankerLearnt

# AdaGrad state that a training event adds in an epoch to a history row, to an item's factors and to its bias, measured
# on the bundled ratings (docs/configuration.md). Tables hold counts and no states.
_STATE_HISTORY, _STATE_ITEM, _STATE_BIAS = 0.016, 0.18, 1.1


class Known(NamedTuple):
    """The rows of a field that the old machine has seen: their places, v, w and training events.

    Attributes:
        at, events: int64 [n]; factors: float32 [n, k]; bias: float64 [n].
    """

    at: npt.NDArray[np.int64]
    factors: Floats
    bias: Doubles
    events: npt.NDArray[np.int64]


@dataclass(frozen=True)
class OldRows:
    """The parameters of an old machine.

    Attributes:
        fields: field -> rows by value, with the columns bias, factors and count of ``fm_parameters``.
        members: machines that it is the mean of (``train.ensemble``).
    """

    model_version: str
    fields: dict[str, pd.DataFrame]
    w0: float
    members: int = 1

    def known(self, field: str, values: Sequence[str], member: int = 0) -> Known:
        """The rows of these values; a value that no training event had counts as new."""
        rows = self.fields[field]
        rows = rows[rows["count"] > 0]
        at = rows.index.get_indexer(pd.Index(values))
        places = np.flatnonzero(at >= 0)
        found = rows.iloc[at[places]]
        width = len(self.fields[field]["factors"].iloc[0])
        factors = np.array(found["factors"].tolist(), np.float32).reshape(len(found), width)
        own = factors_of_members(factors, self.members)[member]
        return Known(places, own, found["bias"].to_numpy(np.float64), found["count"].to_numpy(np.int64))


def old_rows(model_version: str, parameters: pd.DataFrame, w0: float, members: int) -> OldRows:
    """Groups rows of ``fm_parameters`` (columns field, value, bias, factors, count) by field."""
    fields = {str(field): rows.set_index("value") for field, rows in parameters.groupby("field")}
    return OldRows(model_version, fields, w0, members)


class Place(NamedTuple):
    """Where the rows of a field are.

    Attributes:
        values: of the rows, in order.
        factors: view, float32 [n, k]; linear: view, float32 [n], or None for a field without linear weights.
    """

    field: str
    values: Sequence[str]
    factors: Floats
    linear: Floats | None = None


def keep_rows(old: OldRows, places: Iterable[Place], member: int = 0) -> dict[str, Known]:
    """Lays the old machine's rows over ``places``, in place; returns what was known by field."""
    kept = {}
    for place in places:
        known = kept[place.field] = old.known(place.field, place.values, member)
        place.factors[known.at] = known.factors
        if place.linear is not None:
            place.linear[known.at] = known.bias
    return kept


class FieldValues(NamedTuple):
    """A field with the values of its rows, in order."""

    field: str
    values: list[str]


@dataclass(frozen=True)
class Layout:
    """Values of the machine's fields in the order of its rows.

    Attributes:
        items, users: ids as text; side: fields of the item side; context: fields of the query side.
    """

    items: list[str]
    side: list[FieldValues]
    users: list[str]
    decays: tuple[float, ...]
    context: tuple[FieldValues, ...] = ()


def continued(old: OldRows, learnt: Any, layout: Layout, epochs: int) -> Any:
    """``learnt``, a machine or an ensemble before its first round, with the rows of the old one in place.

    Args:
        epochs: how often the old machine has seen its events; with the rows' counts it makes their AdaGrad state.
    """
    if isinstance(learnt, EnsembleLearnt):
        pairs = enumerate(learnt.members)
        return EnsembleLearnt(tuple(_continued(old, one, layout, epochs, member) for member, one in pairs))
    return _continued(old, learnt, layout, epochs, 0)


def _continued(old: OldRows, learnt: Any, layout: Layout, epochs: int, member: int) -> Any:
    if isinstance(learnt, EventLearnt):
        return _events(old, learnt, layout, member)
    if isinstance(learnt, RankerLearnt):
        return _ranker(old, learnt, layout, epochs, member)
    raise TypeError(f"no warm start for {type(learnt).__name__}")


def _events(old: OldRows, learnt: EventLearnt, layout: Layout, member: int) -> EventLearnt:
    factors, linear = learnt.parameters
    bag = [FieldValues(BAG, layout.items)] if BAG in old.fields else []
    users = [FieldValues(USER, layout.users)] if USER in old.fields else []
    places, begin = [], 0
    for field, values in (*users, FieldValues(ITEM, layout.items), *layout.side, *layout.context, *bag):
        own = slice(begin, begin + len(values))
        places.append(Place(field, values, factors[own], linear[:-1][own]))
        begin += len(values)
    keep_rows(old, places, member)
    linear[-1] = old.w0
    return learnt


def _ranker(old: OldRows, learnt: RankerLearnt, layout: Layout, epochs: int, member: int) -> RankerLearnt:
    parameters, side = learnt
    n_items = parameters.n_items
    # before the first round the side features are zeros, so that composed rows are the items' own
    own, own_bias = parameters.item_factors.copy(), parameters.bias.astype(np.float64)
    _keep_queries(old, parameters, layout, epochs, member)
    items = old.known(ITEM, layout.items, member)
    own[items.at], own_bias[items.at] = items.factors, items.bias
    if side is not None:
        ends = np.cumsum([len(values) for _, values in layout.side])
        parts = [slice(end - len(values), end) for end, (_, values) in zip(ends, layout.side, strict=True)]
        of_side = zip(layout.side, parts, strict=True)
        keep_rows(old, [Place(*one, side.factors[part], side.bias[part]) for one, part in of_side], member)
        own, own_bias = compose(side, own, own_bias)
    parameters.item_factors[:], parameters.bias[:] = own, own_bias
    if parameters.factors_state.ndim == 1:  # Adam's means start anew
        parameters.factors_state[-n_items:][items.at] += _STATE_ITEM * epochs * items.events
        parameters.bias_state[items.at] += _STATE_BIAS * epochs * items.events
    return learnt


def _keep_queries(old: OldRows, parameters: Parameters, layout: Layout, epochs: int, member: int) -> None:
    """History tables and the rows of the context, which lie before the items."""
    histories = [FieldValues(field, layout.items) for field in history_fields(layout.decays)]
    begin = 0
    for field, values in (*histories, *layout.context):
        own = slice(begin, begin + len(values))
        known = keep_rows(old, [Place(field, values, parameters.factors[own])], member)[field]
        if parameters.factors_state.ndim == 1:
            parameters.factors_state[own][known.at] += _STATE_HISTORY * epochs * known.events
        begin += len(values)
