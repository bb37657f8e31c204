"""A machine over events as it serves: rows of users and items, the bag of a user's items, composed item vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fm_spark.core.constant_steps import ItemTable
from fm_spark.core.context import NO_CONTEXT, ContextFields, event_features
from fm_spark.core.event_predictions import predict_events
from fm_spark.core.fm_events import NO_USER, Events, Features, Fields, Floats, Rows, bag_of_items, no_features
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.sequences import Sequences, concatenate, select
from fm_spark.core.side import SideFeatures, compose

Ids = npt.NDArray[np.object_] | npt.NDArray[np.int64]


class FmMachine(NamedTuple):
    """A trained machine with what ranking and prediction read of it.

    The score of item i is ``item_bias[i] + <query, item_factors[i]>``; w0, the user's linear weight and the pairs on
    the query side are the same for all items of a user, and are only part of predictions.

    Attributes:
        fields: rows of users, items, side features, context and bag; a field that is switched off has none.
        side: side features of the items as rows of the parameters.
        item_factors: float32 [n_items, k], the items' rows plus those of their side features.
        item_bias: float32 [n_items], linear weights and the pairs among an item's own features.
        users: ids of the users in ascending order, [fields.n_users]; user j has row j.
        limits: least and greatest rating of the training part, for ``squared``.
        context: the fields of time and of users' columns.
    """

    loss: str
    parameters: FmParameters
    fields: Fields
    side: Features
    item_factors: Floats
    item_bias: Floats
    users: Ids
    limits: tuple[float, float] | None = None
    context: ContextFields = NO_CONTEXT

    @property
    def context_factors(self) -> Floats | None:
        """Rows of the context, float32 [n_context, k]; None without any."""
        if not self.fields.n_context:
            return None
        return self.parameters.factors[self.fields.context_offset : self.fields.bag_offset]


def assemble(
    loss: str,
    parameters: FmParameters,
    fields: Fields,
    side: sparse.csr_matrix | None,
    users: Ids,
    limits: tuple[float, float] | None = None,
    context: ContextFields = NO_CONTEXT,
) -> FmMachine:
    """Composes the item vectors (:mod:`fm_spark.core.side`).

    Args:
        side: float32 CSR [n_items, n_side], side features of the items; None for none.
    """
    items = slice(fields.item_offset, fields.side_offset)
    factors, bias = parameters.factors[items], parameters.linear[:-1][items].astype(np.float64)
    if side is not None:
        of_side = slice(fields.side_offset, fields.context_offset)
        learnt = SideFeatures(side, parameters.factors[of_side], parameters.linear[:-1][of_side])
        factors, bias = compose(learnt, factors, bias)
    rows = side_rows(side, fields)
    return FmMachine(loss, parameters, fields, rows, factors, bias.astype(np.float32), users, limits, context)


def side_rows(side: sparse.csr_matrix | None, fields: Fields) -> Features:
    """Side features of the items (float32 CSR [n_items, n_side], None for none) as rows of the parameters."""
    if side is None:
        return no_features(fields.n_items)
    rows = (side.indices + fields.side_offset).astype(np.int32)
    return Features(side.indptr.astype(np.int64), rows, side.data.astype(np.float32))


def user_rows(machine: FmMachine, ids: Ids) -> Rows:
    """Rows of the users with these ids, int32 [n]; NO_USER for one that training has not seen."""
    if len(machine.users) == 0:
        return np.full(len(ids), NO_USER, np.int32)
    place = np.minimum(np.searchsorted(machine.users, ids), len(machine.users) - 1)
    return np.where(machine.users[place] == ids, place, NO_USER).astype(np.int32)


def fm_queries(sequences: Sequences, machine: FmMachine) -> Floats:
    """The query vector of every user, float32 [n_users, k]: his row, and the bag of the given events.

    An unseen user has a zero row; without events the bag is zero. The context is not in it.
    """
    rows = user_rows(machine, sequences.user)
    factors = machine.parameters.factors
    queries = np.zeros((sequences.n_users, machine.item_factors.shape[1]), np.float32)
    queries[rows >= 0] = factors[rows[rows >= 0]]
    if machine.fields.n_bag:
        bag = bag_of_items(sequences.ptr, sequences.item, 0)
        shape = (sequences.n_users, machine.fields.n_bag)
        queries += sparse.csr_matrix((bag.value, bag.row, bag.ptr), shape=shape) @ factors[machine.fields.bag_offset :]
    return queries


def fm_events(asked: Sequences, known: Sequences, fields: Fields, rows: Rows, label: Floats) -> Events:
    """Events with the features of a machine over events.

    Args:
        asked: the events; known: what the bags hold of the same users.
        rows: int32 [n_users], see :func:`user_rows`; label: float32 [n_events].
    """
    length = np.diff(asked.ptr)
    bag = bag_of_items(known.ptr, known.item, fields.bag_offset) if fields.n_bag else no_features(asked.n_users)
    return Events(
        key=asked.user.astype(np.int64) if asked.user.dtype.kind == "i" else np.arange(asked.n_users),
        ptr=asked.ptr,
        user=np.repeat(rows if fields.n_users else np.full(asked.n_users, NO_USER, np.int32), length),
        item=(asked.item + fields.item_offset).astype(np.int32),
        label=label,
        weight=asked.weight,
        context=_context(asked, fields),
        bag=bag,
    )


def _context(asked: Sequences, fields: Fields) -> Features:
    if asked.context is None or not fields.n_context:
        return no_features(len(asked.item))
    owner = np.repeat(np.arange(asked.n_users), np.diff(asked.ptr))
    return event_features(asked.context, np.arange(len(asked.item)), owner, fields.context_offset)


def left_out(sequences: Sequences, folds: int) -> tuple[Sequences, Sequences]:
    """Liked events with bags that do not hold them: each user stands there ``folds`` times, fold after fold.

    Event j of a user belongs to his fold j modulo ``folds``. An item that is in the bag would predict itself, which
    ranking never asks for: what a user has is left out there.

    Returns:
        For every fold its liked events (to learn from), and the events of the other folds (for the bag).
    """
    place = np.arange(len(sequences.item)) - np.repeat(sequences.ptr[:-1], np.diff(sequences.ptr))
    own = [place % folds == fold for fold in range(folds)]
    asked = [select(sequences, mine & (sequences.liked == 1)) for mine in own]
    return concatenate(asked), concatenate([select(sequences, ~mine) for mine in own])


def fm_predictions(asked: Sequences, known: Sequences, machine: FmMachine) -> Floats:
    """What the machine says about events, float32 [n_events]: ratings, probabilities or scores.

    Args:
        asked: the events to predict; known: the events of the same users that the bags hold.
    """
    label = np.zeros(len(asked.item), np.float32)
    events = fm_events(asked, known, machine.fields, user_rows(machine, asked.user), label)
    items = ItemTable(machine.fields.item_offset, machine.side, np.empty(0))
    return predict_events(machine.parameters, events, items, machine.loss, machine.limits)
