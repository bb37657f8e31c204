"""Why an item is on a list, as the columns ``contributions`` and ``because`` of ``top_n``.

Imported by Python workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from fm_spark.core.explain import PUSHES, explain, history_terms
from fm_spark.core.queries import Ranker
from fm_spark.core.sequences import Sequences

CONTRIBUTIONS, BECAUSE = "contributions", "because"
KINDS = ("item_bias", "genres", "history_liked", "history_not_liked", "remainder", "popularity")
BIAS, SIDE, LIKED, NOT_LIKED, REST, COUNT = range(len(KINDS))
STRUCT = pa.struct([("kind", pa.string()), ("item_id", pa.string()), ("value", pa.float64())])
TYPE = T.ArrayType(
    T.StructType(
        [
            T.StructField("kind", T.StringType()),
            T.StructField("item_id", T.StringType()),
            T.StructField("value", T.DoubleType()),
        ]
    )
)

Index = npt.NDArray[np.int64]


class Listed(NamedTuple):
    """Rows of lists, users ascending.

    Attributes:
        user: int64 [n], places in the block; item: int32 [n]; score: float64 [n].
        popular: bool [n], scored by the number of events.
    """

    user: Index
    item: npt.NDArray[np.int32]
    score: npt.NDArray[np.float64]
    popular: npt.NDArray[np.bool_]


class _Made(NamedTuple):
    """The parts of every row, in the order in which they are shown; [n, 3 + PUSHES] each.

    Attributes:
        kind: places in :data:`KINDS`, -1 for no part; item: the past item, -1 for none.
    """

    kind: npt.NDArray[np.int8]
    item: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]


def explained(
    machine: Ranker, own_bias: npt.NDArray[np.float64], known: Sequences, rows: Listed, names: tuple[pa.Array, pa.Array]
) -> tuple[pa.Array, pa.Array]:
    """The columns :data:`CONTRIBUTIONS` and :data:`BECAUSE` of the rows.

    Args:
        own_bias: see :func:`fm_spark.core.explain.explain`.
        known: the users' events on items of the catalogue.
        names: of every item its id as text, and its title.
    """
    made = _parts(machine, own_bias, known, rows)
    there = made.kind >= 0
    flat = [pa.array(KINDS).take(pa.array(made.kind[there])), _taken(names[0], made.item[there]), made.value[there]]
    structs = pa.StructArray.from_arrays([flat[0], flat[1], pa.array(flat[2])], fields=list(STRUCT))
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), structs), _because(made, names[1])


def _parts(machine: Ranker, own_bias: npt.NDArray[np.float64], known: Sequences, rows: Listed) -> _Made:
    n = len(rows.user)
    kind = np.full((n, 3 + PUSHES), -1, np.int8)
    item = np.full((n, 3 + PUSHES), -1, np.int32)
    value = np.zeros((n, 3 + PUSHES))
    pushes = slice(1, 1 + PUSHES)
    first = np.searchsorted(rows.user, np.arange(known.n_users + 1))
    for u in np.unique(rows.user[~rows.popular]):
        own, events = slice(first[u], first[u + 1]), slice(known.ptr[u], known.ptr[u + 1])
        past, liked = known.item[events], known.liked[events]
        parts = explain(machine, own_bias, history_terms(machine, past, liked), rows.item[own], rows.score[own])
        there = parts.event >= 0
        of_event = np.where(liked > 0, np.int8(LIKED), np.int8(NOT_LIKED))
        kind[own, 0], kind[own, -2], kind[own, -1] = BIAS, SIDE, REST
        kind[own, pushes] = np.where(there, of_event[parts.event], -1)
        item[own, pushes] = np.where(there, past[parts.event], -1)
        value[own] = np.column_stack([parts.bias, parts.push, parts.side, parts.rest])
    kind[rows.popular, 0], value[rows.popular, 0] = COUNT, rows.score[rows.popular]
    return _Made(kind, item, value)


def _because(made: _Made, title: pa.Array) -> pa.Array:
    """``Because you liked A, B and C``; null where no liked item pushed."""
    liked = made.kind == LIKED
    # the liked ones first, in their order
    order = np.argsort(~liked, axis=1, kind="stable")[:, :PUSHES]
    item = np.take_along_axis(made.item, order, axis=1)
    n = liked.sum(axis=1)
    a, b, c = (_taken(title, np.where(n > place, item[:, place], -1)) for place in range(PUSHES))
    start = pa.repeat("Because you liked ", len(n))
    joined = [
        pc.binary_join_element_wise(start, a, ""),
        pc.binary_join_element_wise(start, a, " and ", b, ""),
        pc.binary_join_element_wise(start, a, ", ", b, " and ", c, ""),
    ]
    return pc.choose(pa.array(n - 1, mask=n == 0), *joined)


def _taken(values: pa.Array, place: npt.NDArray[np.int32]) -> pa.Array:
    """The values at the places; null at -1."""
    return values.take(pa.array(place, mask=place < 0))
