"""The best users for items and for groups of items: scores that can be compared across users, a block of users at once.

The value of a user u and an item i is

    ranking machines (softmax, bpr)   p(i | u) = exp s(u, i) / sum over all items j of exp s(u, j)
    logistic                          the probability that u likes i
    squared                           the rating that is predicted, within the limits of the ratings

with s(u, i) = <query of u, vector of i> + bias of i, in float64. The raw s is comparable within a user only. The score
of a group is the mean or the largest of the values of its items that count for the user; of ranking machines, whose
values are small, its logarithm. (A mean of logarithms would find those who like nothing much, not those who like the
group.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import topk_kernels as kernels
from fm_spark.core.fm_machine import FmMachine, fm_events, user_rows
from fm_spark.core.item_scores import ITEM_TILE, USER_TILE, UserItems
from fm_spark.core.pointwise import predict
from fm_spark.core.sequences import Sequences, select

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ItemArray = npt.NDArray[np.int32]

MEAN, MAX = "mean", "max"
# scores lie on this grid, coarser than what the order of summation changes: same users, same places, in any blocks
_GRID = 2.0**24


class Targets(NamedTuple):
    """What users are ranked for: groups of items, laid out by :func:`targets`.

    Attributes:
        factors: float64 [n_columns, k], bias: float64 [n_columns]: all items for a ranking machine, else those of the
            groups.
        column: int32 [n_items], the column of each item; -1 for none.
        members: of each group the columns of its items, ascending.
        rule: ``mean`` or ``max``.
        loss: of the machine.
    """

    factors: Doubles
    bias: Doubles
    column: ItemArray
    members: list[ItemArray]
    rule: str
    loss: str

    @property
    def pointwise(self) -> bool:
        """Whether values are predictions, which need no other items."""
        return self.loss in ("squared", "logistic")


def targets(factors: Floats, bias: Floats, groups: Sequence[Ints], rule: str, loss: str) -> Targets:
    """Lays out groups of items.

    Args:
        factors: float32 [n_items, k]; bias: float32 [n_items].
        groups: item indices of each group.
        rule: ``mean`` or ``max``.
        loss: of the machine.
    """
    n_items = len(bias)
    needed = np.arange(n_items)
    if loss in ("squared", "logistic"):
        needed = np.unique(np.concatenate([*groups, np.empty(0, np.int64)]).astype(np.int64))
    column = np.full(n_items, -1, np.int32)
    column[needed] = np.arange(len(needed), dtype=np.int32)
    members = [np.sort(column[group]) for group in groups]
    return Targets(factors[needed].astype(np.float64), bias[needed].astype(np.float64), column, members, rule, loss)


def target_scores(
    asked: Targets,
    queries: Floats,
    seen: UserItems,
    offset: Doubles | None = None,
    limits: tuple[float, float] | None = None,
) -> Doubles:
    """The score of every user and group, float64 [n_users, n_groups]; minus infinity where no item counts.

    Args:
        queries: float32 [n_users, k].
        seen: items that do not count for a user.
        offset: float64 [n_users], what predictions add to s; for pointwise losses.
        limits: least and greatest rating, for ``squared``.
    """
    out = np.empty((len(queries), len(asked.members)))
    hidden = _columns_of(asked, seen)
    add = np.zeros(len(queries)) if offset is None else offset
    for first in range(0, len(queries), USER_TILE):
        users = slice(first, min(first + USER_TILE, len(queries)))
        out[users] = _tile_scores(asked, queries[users].astype(np.float64), _between(hidden, users), add[users], limits)
    np.rint(out * _GRID, out=out)
    out /= _GRID
    return out


def query_offsets(block: Sequences, machine: FmMachine, queries: Floats) -> Doubles:
    """What a prediction adds to s, float64 [n_users]: w0, the user's weight, the pairs on the query side.

    It is the same for all items of a user, so it is read off the prediction of one of them.

    Args:
        block: every user has at least one event; the first of each gives the context.
        queries: float32 [n_users, k], see :func:`~fm_spark.core.queries.user_queries`.
    """
    first = np.zeros(len(block.item), np.bool_)
    first[block.ptr[:-1]] = True
    asked = select(block, first)
    asked = asked._replace(item=np.zeros_like(asked.item))
    said = np.empty(block.n_users, np.float32)
    events = fm_events(asked, block, machine.fields, user_rows(machine, asked.user), np.zeros_like(said))
    predict(machine.parameters, events, machine.side, machine.fields.item_offset, said)
    score = queries.astype(np.float64) @ machine.item_factors[0].astype(np.float64) + float(machine.item_bias[0])
    offset: Doubles = said - score
    return offset


def _tile_scores(
    asked: Targets, queries: Doubles, hidden: UserItems, offset: Doubles, limits: tuple[float, float] | None
) -> Doubles:
    groups = [_Group(len(queries), asked.pointwise) for _ in asked.members]
    norm = _LogSum(len(queries))
    cursor, stop = hidden.ptr[:-1].copy(), hidden.ptr[1:].copy()
    rows = np.arange(len(queries))
    for start, tile in _score_tiles(asked, queries):
        if asked.pointwise:
            _predict(tile, offset, asked.loss, limits)
        else:
            norm.add(tile)
        kernels.mask(tile, rows, start, cursor, stop, hidden.items)
        for group, columns in _members_between(asked.members, start, start + tile.shape[1]):
            groups[group].add(tile[:, columns])
    found = np.stack([each.score(asked) for each in groups], axis=1) if groups else np.empty((len(queries), 0))
    return found if asked.pointwise else found - norm.value()[:, None]


def _score_tiles(asked: Targets, queries: Doubles) -> Iterator[tuple[int, Doubles]]:
    for start in range(0, len(asked.bias), ITEM_TILE):
        part = slice(start, start + ITEM_TILE)
        yield start, queries @ asked.factors[part].T + asked.bias[part]


def _predict(tile: Doubles, offset: Doubles, loss: str, limits: tuple[float, float] | None) -> None:
    tile += offset[:, None]
    if loss == "logistic":
        with np.errstate(over="ignore"):
            np.divide(1.0, 1.0 + np.exp(-tile), out=tile)
    elif limits is not None:
        np.clip(tile, *limits, out=tile)


class _LogSum:
    """ln sum exp over tiles, one number a user.

    Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".
    """

    def __init__(self, n_users: int) -> None:
        self._largest = np.full(n_users, -np.inf)
        self._sum = np.zeros(n_users)

    def add(self, tile: Doubles) -> None:
        largest = np.maximum(self._largest, tile.max(axis=1))
        self._sum *= np.exp(self._largest - largest)
        self._sum += np.exp(tile - largest[:, None]).sum(axis=1)
        self._largest = largest

    def value(self) -> Doubles:
        value: Doubles = self._largest + np.log(self._sum)
        return value


class _Group:
    """Sum, number and maximum of the items that count, one of each a user.

    Of a ranking machine the sum is that of exp(s - largest).
    """

    def __init__(self, n_users: int, pointwise: bool) -> None:
        self._pointwise = pointwise
        self._sum, self._size = np.zeros(n_users), np.zeros(n_users)
        self._largest = np.full(n_users, -np.inf)

    def add(self, values: Doubles) -> None:
        """Adds items, float64 [n_users, n]; minus infinity does not count."""
        counts = values > -np.inf
        self._size += counts.sum(axis=1)
        largest = np.maximum(self._largest, values.max(axis=1))
        if self._pointwise:
            self._sum += np.where(counts, values, 0.0).sum(axis=1)
        else:
            above = np.where(np.isfinite(largest), largest, 0.0)
            self._sum *= np.exp(self._largest - above)
            self._sum += np.exp(values - above[:, None]).sum(axis=1)
        self._largest = largest

    def score(self, asked: Targets) -> Doubles:
        """The mean or the largest, float64 [n_users]; its logarithm, but for the sum of all items, when ranking."""
        if asked.rule == MAX:
            return self._largest
        mean = np.divide(self._sum, self._size, out=np.zeros_like(self._sum), where=self._size > 0)
        with np.errstate(divide="ignore"):
            found = mean if asked.pointwise else self._largest + np.log(mean)
        return np.where(self._size > 0, found, -np.inf)


def _members_between(members: Sequence[ItemArray], first: int, last: int) -> Iterator[tuple[int, ItemArray]]:
    for group, columns in enumerate(members):
        own = columns[np.searchsorted(columns, first) : np.searchsorted(columns, last)]
        if len(own):
            yield group, own - first


def _columns_of(asked: Targets, seen: UserItems) -> UserItems:
    """The sets of items as sets of columns, ascending as before."""
    column = asked.column[seen.items]
    kept = np.concatenate([[0], np.cumsum(column >= 0)]).astype(np.int64)
    return UserItems(kept[seen.ptr], column[column >= 0])


def _between(sets: UserItems, users: slice) -> UserItems:
    ptr = sets.ptr[users.start : users.stop + 1]
    return UserItems(ptr - ptr[0], sets.items[ptr[0] : ptr[-1]])


class BestUsers:
    """The best ``n`` users of each group so far, by (score descending, order of arrival)."""

    def __init__(self, n_groups: int, n: int) -> None:
        self._n = n
        self._best: list[tuple[Doubles, npt.NDArray[np.object_] | Ints]] = []
        self._n_groups = n_groups

    def add(self, users: npt.NDArray[np.object_] | Ints, scores: Doubles) -> None:
        """Adds a block.

        Args:
            users: [n_users], ids after all those that were added before.
            scores: float64 [n_users, n_groups]; minus infinity leaves the user out.
        """
        if not self._best:
            self._best = [(np.empty(0), users[:0])] * self._n_groups
        for group, (score, user) in enumerate(self._best):
            bar = score[-1] if len(score) == self._n else -np.inf
            better = np.flatnonzero(scores[:, group] > bar)
            if len(better):
                both = np.concatenate([score, scores[better, group]])
                order = np.argsort(-both, kind="stable")[: self._n]
                self._best[group] = both[order], np.concatenate([user, users[better]])[order]

    def lists(self) -> Iterator[tuple[int, npt.NDArray[np.object_] | Ints, Doubles]]:
        """(group, ids, scores), best first."""
        for group, (score, user) in enumerate(self._best):
            yield group, user, score
