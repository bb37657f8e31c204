"""The best items of every user, exactly, as rows of the ``top_n`` table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import types as T

from fm_spark.core.context import ContextFields
from fm_spark.core.diversity import POOL, diversify, unit_vectors
from fm_spark.core.item_scores import Items, prepare_items
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import TRAIN, Sequences, select, take_users
from fm_spark.errors import TableError
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.histories import Histories, Read
from fm_spark.ranking.blocks import broadcast, list_tasks, user_blocks
from fm_spark.ranking.explained import BECAUSE, CONTRIBUTIONS, STRUCT, TYPE, Listed, explained
from fm_spark.ranking.list_rules import ListMaker, ListRule
from fm_spark.ranking.served import Served
from fm_spark.tables.made import Made

MODEL, HISTORY, POPULAR = SOURCES = ("model", "history", "popular")
"""Where a list comes from: the machine, for a user that it was trained on; the machine, for a later one, from his
history; the number of events of each item, for a user of whose events the machine knows no item."""
DIVERSITY_COST = "diversity_cost"


class _Shared(NamedTuple):
    """What every task needs; sent once.

    Attributes:
        popular: the items with their numbers of events as biases, and factors of length 1 that are zero.
        lists: by name.
        own_bias: see :func:`fm_spark.core.explain.explain`; None where nothing is to be explained.
        diversity: see :func:`fm_spark.core.diversity.diversify`.
    """

    machine: Ranker
    context: ContextFields
    items: Items
    popular: Items
    lists: tuple[ListRule, ...]
    feature_to_item: npt.NDArray[np.int32]
    item_id: pa.Array
    title: pa.Array
    own_bias: npt.NDArray[np.float64] | None
    diversity: float


class Extras(NamedTuple):
    """What lists have beside their items.

    Attributes:
        own_bias: float64 [n_items], the items' own linear weights, with which scores are explained; None for no
            explanations.
        diversity: 0 (none) to 1, see :func:`fm_spark.core.diversity.diversify`.
    """

    own_bias: npt.NDArray[np.float64] | None = None
    diversity: float = 0.0


PLAIN = Extras()


@contextmanager
def top_n_rows(
    users: Served, machine: Ranker, catalogue: Catalogue, lists: Sequence[ListRule], extras: Extras = PLAIN
) -> Iterator[Made]:
    """The lists of all users, the columns of ``top_n`` but for run and model; to be used inside the ``with`` block.

    Users are ranked in blocks, so the memory of a task does not grow with the number of users; all lists are made in
    one pass over them. Every item of the catalogue can be recommended, also one without events. Fields of time are
    those of the newest event, for everybody. Each partition holds a range of users, in the order of (user_id,
    list_name, rank), and no partition has a user of another.

    Args:
        lists: from :func:`fm_spark.ranking.list_rules.list_rules`; a user for whom fewer items are left gets a
            shorter list, or none.
    """
    spark = users.histories.spark
    context = as_of_newest(machine.context, users.histories)
    shared = _Shared(
        machine,
        context,
        prepare_items(machine.item_factors, machine.item_bias),
        prepare_items(np.zeros((catalogue.n_items, 1), np.float32), catalogue.count, catalogue.count > 0),
        tuple(sorted(lists, key=lambda rule: rule.name)),
        users.feature_to_item,
        pa.array(catalogue.item_id),
        pa.array(catalogue.title, pa.string()),
        *extras,
    )
    tasks = list_tasks(spark, users.histories.n_users(), sum(rule.n for rule in lists), catalogue.n_items)
    source, read = users.histories.parts(tasks, context)
    with broadcast(spark, shared) as sent:
        yield Made(source, partial(_lists, sent, read), _schema(users, catalogue))


def _schema(users: Served, catalogue: Catalogue) -> T.StructType:
    item_id = T.LongType() if catalogue.item_id.dtype.kind == "i" else T.StringType()
    types: dict[str, T.DataType] = {
        "list_name": T.StringType(),
        "user_id": users.histories.user_type,
        "rank": T.IntegerType(),
        "item_id": item_id,
        "title": T.StringType(),
        "score": T.DoubleType(),
        "source": T.StringType(),
        CONTRIBUTIONS: TYPE,
        BECAUSE: T.StringType(),
        DIVERSITY_COST: T.DoubleType(),
    }
    return T.StructType([T.StructField(name, type_) for name, type_ in types.items()])


def as_of_newest(context: ContextFields, histories: Histories) -> ContextFields:
    """The fields as of the time of the newest event."""
    return context._replace(as_of=histories.newest()) if context.time else context


def _lists(sent: Broadcast[_Shared], read: Read, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    ranked, popular = _Lists(shared, shared.items), _Lists(shared, shared.popular)
    last: Any = None
    for block in user_blocks(read(batches), shared.feature_to_item, shared.context):
        last = _checked_order(block, last)
        known = select(block, block.item >= 0) if (block.item < 0).any() else block
        best = ranked.of(known, user_queries(known, shared.machine, known))
        without = np.flatnonzero(np.diff(known.ptr) == 0)
        if len(without):
            counted = popular.of(take_users(known, without), np.zeros((len(without), 1), np.float32))
            best.item[without], best.score[without], best.cost[without] = counted
        source = np.where(block.part[block.ptr[:-1]] == TRAIN, 0, 1)
        source[without] = 2
        yield _rows(shared, known, best, source)


class _Best(NamedTuple):
    """All lists of a block's users side by side: item int32, score and cost float64, [n_users, sum of the lengths]."""

    item: npt.NDArray[np.int32]
    score: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]


class _Lists:
    """Makes all lists of blocks, from the scores of the machine or from the numbers of events."""

    def __init__(self, shared: _Shared, items: Items) -> None:
        self._rules, self._share = shared.lists, shared.diversity
        self._maker = ListMaker(items)
        # popular items are made diverse by the vectors of the machine as well
        self._vectors = unit_vectors(shared.items.factors) if self._share else None

    def of(self, block: Sequences, queries: npt.NDArray[np.float32]) -> _Best:
        made = [self._one(rule, block, queries) for rule in self._rules]
        return _Best(*(np.hstack(parts) for parts in zip(*made, strict=True)))

    def _one(self, rule: ListRule, block: Sequences, queries: npt.NDArray[np.float32]) -> _Best:
        if self._vectors is None:
            best = self._maker.lists(rule, block, queries)
            return _Best(best.item, best.score, np.zeros((block.n_users, 0)))
        pool = self._maker.lists(rule._replace(n=POOL * rule.n), block, queries)
        diverse = diversify(pool, self._vectors, self._share, rule.n)
        return _Best(diverse.lists.item, diverse.lists.score, diverse.cost)


def _checked_order(block: Sequences, last: Any) -> Any:
    """The last user of the block; rows are written without another look at their keys, so users must ascend."""
    users = block.user if last is None else np.concatenate([[last], block.user])
    if len(users) > 1 and not (users[:-1] < users[1:]).all():
        raise TableError("users do not ascend within a partition; this is a defect of fm_spark, please report it")
    return users[-1]


def _rows(shared: _Shared, known: Sequences, best: _Best, source: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """All lists of the block's users, user by user."""
    user, column = np.nonzero(best.item >= 0)
    item, score = best.item[user, column], best.score[user, column]
    place = np.concatenate([np.arange(rule.n, dtype=np.int32) for rule in shared.lists])
    name = np.repeat(np.arange(len(shared.lists), dtype=np.int32), [rule.n for rule in shared.lists])
    why, because = pa.nulls(len(user), pa.list_(STRUCT)), pa.nulls(len(user), pa.string())
    if shared.own_bias is not None:
        listed = Listed(user, item, score, source[user] == SOURCES.index(POPULAR))
        names = shared.item_id.cast(pa.string()), shared.title
        why, because = explained(shared.machine, shared.own_bias, known, listed, names)
    columns = {
        "list_name": pa.array([rule.name for rule in shared.lists]).take(pa.array(name[column])),
        "user_id": pa.array(known.user).take(pa.array(user)),
        "rank": pa.array(place[column] + 1),
        "item_id": shared.item_id.take(pa.array(item)),
        "title": shared.title.take(pa.array(item)),
        "score": pa.array(score),
        "source": pa.array(SOURCES).take(pa.array(source[user])),
        CONTRIBUTIONS: why,
        BECAUSE: because,
        DIVERSITY_COST: pa.array(best.cost[user, column]) if shared.diversity else pa.nulls(len(user), pa.float64()),
    }
    return pa.RecordBatch.from_pydict(columns)
