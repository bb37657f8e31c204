"""Which items each list of a block of users may hold, and the lists.

Imported by Python workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core.item_scores import Items, UserItems, no_items, restrict, user_items
from fm_spark.core.sequences import Sequences, take_users
from fm_spark.core.topk import Sorted, TopN, sort_items, top_n, with_more
from fm_spark.events.catalogue import Catalogue
from fm_spark.named_lists import NamedList
from fm_spark.ranking.filters import Mask, Rule, item_columns, item_rule, user_answers

# below this share of the catalogue a list has a copy of its items, so that it costs what it holds; above, a mask
_COPIED = 0.5


class ListRule(NamedTuple):
    """One list, ready for tasks.

    Attributes:
        n: length of the list.
        unseen_only: leave out what the user has an event with.
        enough: bool [n_items], the items with enough events.
    """

    name: str
    n: int
    unseen_only: bool
    rule: Rule
    enough: Mask


def list_rules(lists: Sequence[NamedList], catalogue: Catalogue, tags: Sequence[Sequence[str]]) -> tuple[ListRule, ...]:
    """The lists of a configuration over a catalogue.

    Args:
        tags: of each item of the catalogue.

    Raises:
        ConfigError: a filter names a column that does not exist, or tests one as it cannot be tested.
    """
    columns = item_columns(catalogue, tags)
    return tuple(
        ListRule(
            one.name,
            one.n,
            one.unseen_only,
            item_rule(one.tree, columns, f"recommend.lists.{one.name}"),
            catalogue.count >= one.min_ratings,
        )
        for one in lists
    )


class _Part(NamedTuple):
    """The users for whom the same items pass, and these: where a user does not know an item, knows it, likes it."""

    users: npt.NDArray[np.int64]
    states: tuple[Mask, Mask, Mask]


class _Pool(NamedTuple):
    """The items of a list as the kernel reads them; ``place[i]`` is where item i lies among them, -1 for nowhere.

    Attributes:
        item: int32, what lies there; both None when all items do.
    """

    items: Items
    ordered: Sorted
    place: npt.NDArray[np.int32] | None
    item: npt.NDArray[np.int32] | None


class ListMaker:
    """Makes the lists of blocks of users; keeps the items of each filter from one block to the next."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._pools: dict[bytes, _Pool] = {}

    def lists(self, rule: ListRule, block: Sequences, queries: npt.NDArray[np.float32]) -> TopN:
        """The list of every user of the block.

        Args:
            block: all events of the users; events on items outside the catalogue have item -1.
            queries: float32 [n_users, k].
        """
        parts = list(_parts(rule, block))
        if len(parts) == 1:
            return self._of_part(rule, parts[0], block, queries)
        item = np.full((block.n_users, rule.n), -1, np.int32)
        score = np.full((block.n_users, rule.n), np.nan)
        for part in parts:
            best = self._of_part(rule, part, take_users(block, part.users), queries[part.users])
            item[part.users], score[part.users] = best.item, best.score
        return TopN(item, score, np.count_nonzero(item >= 0, axis=1))

    def _of_part(self, rule: ListRule, part: _Part, block: Sequences, queries: npt.NDArray[np.float32]) -> TopN:
        unknown, known, loved = part.states
        hidden, more = no_items(block.n_users), no_items(block.n_users)
        if rule.unseen_only:
            hidden = user_items(block.ptr, block.item, block.item >= 0)
        elif rule.rule.of_pair:
            passes = np.where(block.liked > 0, loved[block.item], known[block.item])
            hidden = user_items(block.ptr, block.item, (block.item >= 0) & ~passes)
            more = user_items(block.ptr, block.item, (block.item >= 0) & passes & ~unknown[block.item])
        pool = self._pool(unknown, queries)
        best = top_n(pool.items, queries, rule.n, _moved(hidden, pool), pool.ordered)
        if pool.item is not None:
            # the place behind the last stands for the end of a list, -1
            best = best._replace(item=np.append(pool.item, np.int32(-1))[best.item])
        return with_more(self._items, queries, best, more) if len(more.items) else best

    def _pool(self, allowed: Mask, queries: npt.NDArray[np.float32]) -> _Pool:
        """``queries``: of some users, who stand for all of them."""
        key = np.packbits(allowed).tobytes()
        if key not in self._pools:
            self._pools[key] = _pool(self._items, allowed, float(np.median(np.linalg.norm(queries, axis=1))))
        return self._pools[key]


def _pool(items: Items, allowed: Mask, reach: float) -> _Pool:
    chosen = np.flatnonzero(allowed).astype(np.int32)
    if len(chosen) > _COPIED * items.n_items:
        some = items if len(chosen) == items.n_items else restrict(items, allowed)
        return _Pool(some, sort_items(some, reach), None, None)
    place = np.full(items.n_items, -1, np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    # the largest norm of all items bounds that of some
    some = items._replace(factors=items.factors[chosen], bias=items.bias[chosen])
    return _Pool(some, sort_items(some, reach), place, chosen)


def _moved(hidden: UserItems, pool: _Pool) -> UserItems:
    """The hidden items by their places in the pool; those outside are no longer there."""
    if pool.place is None:
        return hidden
    # places ascend with the items
    place = pool.place[hidden.items]
    inside = np.concatenate([[0], np.cumsum(place >= 0)])
    return UserItems(inside[hidden.ptr].astype(np.int64), place[place >= 0])


def _parts(rule: ListRule, block: Sequences) -> Iterator[_Part]:
    """The users of the block by their answers to the tests that they pass or fail as a whole."""
    asked = rule.rule.of_user
    seen_count = np.diff(block.ptr)
    liked_count = np.diff(np.concatenate([[0], np.cumsum(block.liked, dtype=np.int64)])[block.ptr])
    answers = np.zeros((block.n_users, len(asked)), np.bool_)
    for j, test in enumerate(asked):
        answers[:, j] = user_answers(test, seen_count, liked_count)
    # of no tests every user has the same answers: none
    for answer in np.unique(answers, axis=0) if asked else answers[:1]:
        users = np.flatnonzero((answers == answer).all(axis=1))
        states = rule.rule.states(dict(zip(asked, map(bool, answer), strict=True)))
        yield _Part(users, (states[0] & rule.enough, states[1] & rule.enough, states[2] & rule.enough))
