"""Filters over the catalogue: which items pass, alone or together with what a user has done.

The values of a filter are compared with arrays on the driver; nothing of them ever becomes SQL. A test of a value that
is not known (no year) is false, and NOT turns that around as it does any other.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.config_values import nearest
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.filter_grammar import Condition, Every, Filter, Not, conditions

Mask = npt.NDArray[np.bool_]
Kind = Literal["number", "text", "names", "yes-or-no"]

OF_PAIR = ("seen", "liked")
"""Yes-or-no columns of a user and an item: has an event with it, has a liked one."""
OF_USER = ("seen_count", "liked_count")
"""Numbers of a user: his events, his liked events."""
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ALLOWED: dict[Kind, tuple[str, ...]] = {
    "number": (*_COMPARE, "in", "null"),
    "text": (*_COMPARE, "in", "contains", "null"),
    "names": ("contains", "in", "null"),
    "yes-or-no": ("is",),
}
_ALLOWED_TEXT: dict[Kind, str] = {
    "number": "comparisons, IN and IS NULL with numbers",
    "text": "comparisons, IN, CONTAINS and IS NULL with text in quotes",
    "names": "CONTAINS, IN (any of them) and IS NULL with text in quotes",
    "yes-or-no": "its name alone, for example NOT seen",
}


class ItemColumn(NamedTuple):
    """One column of the catalogue, by item: numbers (NaN where not known), texts (None), or sets of names."""

    kind: Kind
    values: npt.NDArray[Any]


class Rule(NamedTuple):
    """A filter with the answers of all items to the tests that do not depend on the user.

    Attributes:
        masks: bool [n_items] for each such test.
    """

    tree: Filter | None
    masks: dict[Condition, Mask]
    n_items: int

    @property
    def of_pair(self) -> bool:
        """Whether an item that the user knows may fare otherwise than one that he does not know."""
        return any(test.column in OF_PAIR for test in self._history())

    @property
    def of_user(self) -> tuple[Condition, ...]:
        """The tests that users pass or fail as a whole."""
        return tuple(test for test in self._history() if test.column in OF_USER)

    def allowed(self, answers: Mapping[Condition, bool]) -> Mask:
        """The items that pass, bool [n_items], given the answers to the tests of the history."""
        every = np.ones(self.n_items, np.bool_)
        if self.tree is None:
            return every
        return _evaluate(self.tree, lambda test: every & answers[test] if test in answers else self.masks[test])

    def states(self, of_user: Mapping[Condition, bool]) -> tuple[Mask, Mask, Mask]:
        """The items that pass, each bool [n_items]: where the user does not know them, knows them, likes them."""
        seen, liked = (Condition(name, "is") for name in OF_PAIR)
        states = (False, False), (True, False), (True, True)
        unknown, known, loved = (self.allowed({**of_user, seen: s, liked: li}) for s, li in states)
        return unknown, known, loved

    def _history(self) -> Iterable[Condition]:
        return () if self.tree is None else (t for t in dict.fromkeys(conditions(self.tree)) if t not in self.masks)


def item_columns(catalogue: Catalogue, tags: Sequence[Sequence[str]]) -> dict[str, ItemColumn]:
    """The columns that a filter may name: those of the table ``items``, and each of its ``attributes``.

    Args:
        tags: of each item of the catalogue.
    """
    ids = catalogue.item_id
    columns = {
        "item_id": ItemColumn("number" if ids.dtype.kind == "i" else "text", ids),
        "title": ItemColumn("text", catalogue.title),
        "genres": _names(catalogue.genres),
        "year": ItemColumn("number", np.array([np.nan if y is None else y for y in catalogue.year], np.float64)),
        "tags": _names(tags),
        "count": ItemColumn("number", catalogue.count),
    }
    for name in sorted({name for of_item in catalogue.attributes for name in of_item if not name.startswith("__")}):
        values = [[v for v in of_item.get(name, []) if v != UNSEEN] for of_item in catalogue.attributes]
        # a column with one value at most is text, which can be compared as well
        single = all(len(of_item) < 2 for of_item in values)
        text = np.array([v[0] if v else None for v in values], object) if single else None
        columns.setdefault(name, _names(values) if text is None else ItemColumn("text", text))
    return columns


def item_rule(tree: Filter | None, columns: Mapping[str, ItemColumn], key: str, history: bool = True) -> Rule:
    """Checks a filter against the catalogue and answers what can be answered without a user.

    Args:
        columns: from :func:`item_columns`.
        key: the configuration key that holds the filter, for messages.
        history: whether tests of the user's history are allowed.

    Raises:
        ConfigError: a column that does not exist (the message lists those that do), or a test that does not fit it.
    """
    masks: dict[Condition, Mask] = {}
    of_history: tuple[str, ...] = (*OF_PAIR, *OF_USER) if history else ()
    for test in () if tree is None else conditions(tree):
        if test.column in of_history:
            _check(test, "yes-or-no" if test.column in OF_PAIR else "number", key)
        elif test.column in columns:
            column = columns[test.column]
            _check(test, column.kind, key)
            masks[test] = _answers(test, column)
        else:
            known = [*columns, *of_history]
            raise ConfigError(
                f"{key}: no column {test.column}{nearest(test.column, known)}; a filter can name {', '.join(known)}"
            )
    return Rule(tree, masks, len(columns["item_id"].values))


def item_mask(tree: Filter | None, columns: Mapping[str, ItemColumn], key: str) -> Mask:
    """The items that pass a filter without tests of a user's history, bool [n_items]; errors of :func:`item_rule`."""
    return item_rule(tree, columns, key, history=False).allowed({})


def user_answers(test: Condition, seen_count: npt.NDArray[np.int64], liked_count: npt.NDArray[np.int64]) -> Mask:
    """The users that pass one of :attr:`Rule.of_user`, bool [n_users]."""
    values = seen_count if test.column == OF_USER[0] else liked_count
    return _answers(test, ItemColumn("number", values))


def _names(values: Iterable[Iterable[str]]) -> ItemColumn:
    sets = [frozenset(names) for names in values]
    column = np.empty(len(sets), object)
    column[:] = sets
    return ItemColumn("names", column)


def _evaluate(tree: Filter, answer: Callable[[Condition], Mask]) -> Mask:
    if isinstance(tree, Condition):
        return answer(tree)
    if isinstance(tree, Not):
        return ~_evaluate(tree.of, answer)
    parts = [_evaluate(part, answer) for part in tree.parts]
    whole: Mask = np.logical_and.reduce(parts) if isinstance(tree, Every) else np.logical_or.reduce(parts)
    return whole


def _check(test: Condition, kind: Kind, key: str) -> None:
    fits = test.test in _ALLOWED[kind] and all(isinstance(v, str) != (kind == "number") for v in test.values)
    if not fits:
        shown = {"is": "its name alone", "null": "IS NULL"}.get(test.test, test.test.upper())
        given = f" {', '.join(map(repr, test.values))}" if test.values else ""
        raise ConfigError(
            f"{key}: {test.column} holds {kind}, which {shown}{given} does not fit; use {_ALLOWED_TEXT[kind]}"
        )


def _answers(test: Condition, column: ItemColumn) -> Mask:
    """The answer of every item to one test, bool [n_items]."""
    if column.kind == "number":
        return _of_numbers(test, column.values)
    if column.kind == "names":
        return _each(
            column.values, lambda names: not names if test.test == "null" else not names.isdisjoint(test.values)
        )
    if test.test == "null":
        return _each(column.values, lambda text: text is None)
    if test.test == "contains":
        return _each(column.values, lambda text: text is not None and test.values[0] in text)
    if test.test == "in":
        return _each(column.values, lambda text: text is not None and text in test.values)
    compare = _COMPARE[test.test]
    return _each(column.values, lambda text: text is not None and compare(text, test.values[0]))


def _of_numbers(test: Condition, values: npt.NDArray[Any]) -> Mask:
    if test.test == "null":
        return np.asarray(np.isnan(values), np.bool_)
    if test.test == "in":
        return np.isin(values, np.array(test.values))
    answers: Mask = _COMPARE[test.test](values, test.values[0]) & ~np.isnan(values)
    return answers


def _each(values: npt.NDArray[Any], passes: Callable[[Any], bool]) -> Mask:
    return np.fromiter((passes(value) for value in values), np.bool_, len(values))
