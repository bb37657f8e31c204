"""What a task says about the pairs of a block of users: scores, predictions, classes, ranks, and where they come from.

Imported by Python workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fm_spark.core.constant_steps import POINTWISE
from fm_spark.core.context import NO_CONTEXT, Context, ContextFields
from fm_spark.core.fm_machine import FmMachine, fm_predictions, user_rows
from fm_spark.core.item_scores import Items, prepare_items, score_pairs
from fm_spark.core.knn_classes import class_votes, unit_rows
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import Sequences, select
from fm_spark.core.time_fields import time_rows
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import TIME, VALUE
from fm_spark.events.user_columns import ATTRIBUTES, user_features

MODEL, HISTORY, POPULAR, SIDE, UNKNOWN = range(5)
SOURCES = ("model", "history", "popular", "side_features", "unknown_item")
"""Sources by number. A pair without a usable id has :data:`INVALID`."""
INVALID = "invalid"
# the queries of so many pairs are laid out at once: at k = 64 these are 16 MB
_CHUNK = 65_536
# an item of which nothing is known is taken for a typical one of this share of the catalogue, the rarest
_RARE_SHARE = 0.1

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Answering(NamedTuple):
    """What every task needs; sent once.

    Attributes:
        items: the catalogue and, as its last row, an item of which nothing is known.
        learnt: bool [n_items], see :class:`~fm_spark.ranking.serving.Serving`.
        informed: bool [n_items], items that the machine says anything about.
        popularity: float64 [n_items + 1], ln((events + 1) / (all events + n_items)): the score for somebody of whom
            a machine that ranks knows nothing.
        ids: the catalogue's item ids.
        classes: float64 [n_classes], ascending, when classes are asked for; vectors: unit item vectors.
        usual: the class of somebody who rated nothing.
        neighbours: how many vote.
    """

    machine: Ranker
    context: ContextFields
    items: Items
    learnt: npt.NDArray[np.bool_]
    informed: npt.NDArray[np.bool_]
    popularity: Doubles
    feature_to_item: npt.NDArray[np.int32]
    ids: pa.Array
    classes: Doubles | None = None
    vectors: npt.NDArray[np.float32] | None = None
    usual: float = 0.0
    neighbours: int = 0

    @property
    def pointwise(self) -> bool:
        """Whether the machine predicts values or probabilities, not only orders."""
        return isinstance(self.machine, FmMachine) and self.machine.loss in POINTWISE


class Answers(NamedTuple):
    """Of every pair of a block, in its order; what was not asked for is None.

    Attributes:
        prediction: ratings or probabilities; label: classes; voters: neighbours that voted.
        source: int64, number of the source.
        rank: int32, place among the pairs of the user, by score and item_id; 1 is best.
    """

    score: Doubles
    prediction: Doubles | None
    label: Doubles | None
    voters: npt.NDArray[np.int32] | None
    source: Ints
    rank: npt.NDArray[np.int32]

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names of the sources by number."""
        return SOURCES


class _Block(NamedTuple):
    """The users of a block with what they did, and what is asked of them.

    Attributes:
        known: the events that the machine can read.
        same: bool [n_users], their events are those of the training; listed: they have columns of users.
        owner: int64 [n_pairs], the user; item: int32 [n_pairs], n_items for an item of which nothing is known.
    """

    known: Sequences
    same: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]
    owner: Ints
    item: npt.NDArray[np.int32]


def prepare(machine: Ranker, catalogue: Catalogue, learnt: npt.NDArray[np.bool_]) -> Answering:
    """The machine laid out for pairs.

    Args:
        learnt: bool [n_items], see :class:`~fm_spark.ranking.serving.Serving`.
    """
    factors, bias = machine.item_factors, machine.item_bias
    informed = learnt | (factors != 0).any(axis=1) | (bias != 0)
    unknown = np.zeros(factors.shape[1], np.float32), np.float32(0)
    pointwise = isinstance(machine, FmMachine) and machine.loss in POINTWISE
    if not pointwise:  # a zero row is an average item where values are predicted, and a good one where items compete
        known = np.flatnonzero(learnt)
        rare = known[np.argsort(catalogue.count[known], kind="stable")][: max(1, int(_RARE_SHARE * len(known)))]
        unknown = factors[rare].mean(axis=0, dtype=np.float64), bias[rare].mean(dtype=np.float64)
    items = prepare_items(np.vstack([factors, unknown[0]]), np.append(bias, unknown[1]))
    count = np.append(catalogue.count, 0)
    popularity = np.log((count + 1.0) / (count.sum() + len(count)))
    ids = pa.array(catalogue.item_id)
    return Answering(machine, NO_CONTEXT, items, learnt, informed, popularity, catalogue.feature_to_item, ids)


def with_classes(answering: Answering, classes: Doubles, usual: float, neighbours: int) -> Answering:
    """The same, for classes by neighbours too; see :class:`Answering`."""
    vectors = unit_rows(answering.machine.item_factors)
    return answering._replace(classes=classes, usual=usual, neighbours=neighbours, vectors=vectors)


def answers(table: pa.Table, is_pair: npt.NDArray[np.bool_], shared: Answering) -> Answers:
    """The answers for the pairs of a table of whole users, in their order.

    Args:
        table: the pairs of each user, then his events in their order; columns as ``pairs`` lays them out.
        is_pair: bool [n_rows].
    """
    block = _block(table, is_pair, shared)
    queries = user_queries(block.known, shared.machine, block.known)
    source = _user_source(block, shared)
    score = _scores(shared.items, queries, block.owner, block.item)
    prediction = _predictions(block, queries, score, shared) if shared.pointwise else None
    of_pair = source[block.owner]
    if not shared.pointwise:
        score = np.where(of_pair == POPULAR, shared.popularity[block.item], score)
    unknown = block.item == len(shared.learnt)
    later = np.append(~shared.learnt, False)[block.item]
    label, voters = _classes(block, unknown, shared)
    return Answers(
        score,
        prediction,
        label,
        voters,
        np.where(unknown, UNKNOWN, np.where(later, SIDE, of_pair)),
        _ranks(block.owner, score, table["_item"].filter(pa.array(is_pair))),
    )


def _block(table: pa.Table, is_pair: npt.NDArray[np.bool_], shared: Answering) -> _Block:
    user = table["user_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(user)))
    done = table.filter(pa.array(~is_pair))
    item = shared.feature_to_item[done["item_feature"].to_numpy()]
    n = len(item)
    ptr = _ends(owner[~is_pair], len(starts))
    first = table.take(pa.array(starts))  # a pair: they stand before the events
    context = None
    if shared.context.n_rows:
        time = np.empty((n, 0), np.int32)
        if shared.context.time:
            moment = done[TIME].to_numpy()
            begin = np.repeat(moment[np.minimum(ptr[:-1], max(n - 1, 0))], np.diff(ptr)) if n else moment
            time = time_rows(shared.context, moment, begin)
        context = Context(time, user_features(first[ATTRIBUTES], shared.context, len(starts)))
    events = Sequences(
        user=user[starts],
        ptr=ptr,
        item=item,
        liked=(done["label"].to_numpy() > 0).astype(np.uint8),
        weight=np.ones(n, np.float32),
        part=np.zeros(n, np.uint8),
        value=done[VALUE].to_numpy().astype(np.float32),
        context=context,
    )
    asked = pc.index_in(table["_item"].filter(pa.array(is_pair)), value_set=shared.ids)
    place = pc.fill_null(asked, len(shared.ids)).to_numpy().astype(np.int32)
    return _Block(
        select(events, (item >= 0) & shared.learnt[item]),
        first["_same"].to_numpy().astype(np.bool_),
        ~pc.is_null(first[ATTRIBUTES]).to_numpy().astype(np.bool_),
        owner[is_pair],
        np.where(np.append(shared.informed, True)[place], place, len(shared.ids)).astype(np.int32),
    )


def _user_source(block: _Block, shared: Answering) -> Ints:
    """Where the machine knows each user from, int64 [n_users]."""
    machine = shared.machine
    rows = user_rows(machine, block.known.user) if isinstance(machine, FmMachine) else np.full(len(block.same), -1)
    reads_history = isinstance(machine, Machine) or machine.fields.n_bag > 0
    active = np.diff(block.known.ptr) > 0
    without = np.where(rows >= 0, MODEL, np.where(block.listed, SIDE, POPULAR))
    return np.where(active & reads_history, np.where(block.same, MODEL, HISTORY), without)


def _scores(items: Items, queries: npt.NDArray[np.float32], owner: Ints, item: npt.NDArray[np.int32]) -> Doubles:
    score = np.empty(len(item))
    for first in range(0, len(item), _CHUNK):
        part = slice(first, first + _CHUNK)
        score[part] = score_pairs(items, queries[owner[part]], item[part, None])[:, 0]
    return score


def _predictions(block: _Block, queries: npt.NDArray[np.float32], score: Doubles, shared: Answering) -> Doubles:
    """Ratings or probabilities; for an item of which nothing is known, what is left without an item."""
    machine = shared.machine
    if not isinstance(machine, FmMachine):
        raise TypeError("only machines over events predict")
    unknown = block.item == len(shared.learnt)
    stand_in = np.where(unknown, 0, block.item).astype(np.int32)
    raw = fm_predictions(_asked(block, stand_in, shared), block.known, machine._replace(loss="squared", limits=None))
    value = raw.astype(np.float64)
    if unknown.any():
        of_item = _scores(shared.items, queries, block.owner[unknown], stand_in[unknown])
        value[unknown] += score[unknown] - of_item
    if machine.loss == "logistic":
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-value)))
    return value if machine.limits is None else np.clip(value, *machine.limits)


def _asked(block: _Block, item: npt.NDArray[np.int32], shared: Answering) -> Sequences:
    """The pairs as events of their users, with the context of now."""
    known, n = block.known, len(item)
    context = None
    if known.context is not None:
        some = np.diff(known.ptr) > 0
        time = np.tile(shared.context.offsets[: len(shared.context.time)], (known.n_users, 1))
        time[some] = known.context.time[known.ptr[:-1][some]]
        context = Context(time[block.owner], known.context.user)
    zeros, ptr = np.zeros(n, np.uint8), _ends(block.owner, known.n_users)
    return Sequences(known.user, ptr, item, zeros, np.ones(n, np.float32), zeros, None, context)


def _classes(
    block: _Block, unknown: npt.NDArray[np.bool_], shared: Answering
) -> tuple[Doubles | None, npt.NDArray[np.int32] | None]:
    if shared.classes is None or shared.vectors is None:
        return None, None
    asked = _asked(block, np.where(unknown, 0, block.item).astype(np.int32), shared)
    votes = class_votes(shared.vectors, block.known, shared.classes, asked, shared.neighbours)
    voted = (votes.label >= 0) & ~unknown
    label = np.where(voted, shared.classes[np.maximum(votes.label, 0)], shared.usual)
    return label, np.where(voted, votes.voters, 0).astype(np.int32)


def _ranks(owner: Ints, score: Doubles, ids: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    _, by_id = np.unique(ids.to_numpy(), return_inverse=True)
    order = np.lexsort((by_id, -score, owner))
    rank = np.empty(len(owner), np.int32)
    starts = np.searchsorted(owner, owner)  # owners ascend
    rank[order] = np.arange(len(owner)) - starts + 1
    return rank


def _ends(owner: Ints, n: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))]).astype(np.int64)
