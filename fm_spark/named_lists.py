"""The lists that ``recommend`` makes: ``default``, and those of ``recommend.lists``, out of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fm_spark.config_values import checked, nearest
from fm_spark.errors import ConfigError
from fm_spark.filter_grammar import Filter, conditions, parse_filter

if TYPE_CHECKING:
    from fm_spark.config_sections import RecommendConfig

DEFAULT = "default"
HISTORY_TESTS = ("seen", "liked")
"""Columns of a filter that ask what the user has done with the item."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = "recommend.lists"
_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "filter": (str, {}),
    "unseen_only": (bool, {}),
    "min_ratings": (int, {"least": 0}),
    "n": (int, {"least": 1}),
}


@dataclass(frozen=True)
class NamedList:
    """One list of every user.

    Attributes:
        text: the filter as it was given, "" for none; ``tree``: the same, read.
        n: length of the list.
        unseen_only: leave out what the user has an event with.
        min_ratings: leave out items with fewer events.
    """

    name: str
    text: str
    tree: Filter | None
    n: int
    unseen_only: bool
    min_ratings: int

    @property
    def rule(self) -> str:
        """What an item must fulfil, as text."""
        least = f"count >= {self.min_ratings}" if self.min_ratings else ""
        return " AND ".join(f"({part})" if self.text and least else part for part in (self.text, least) if part)


def named_lists(recommend: RecommendConfig) -> tuple[NamedList, ...]:
    """``default`` first, then the lists of ``recommend.lists`` in their order.

    A value of ``recommend.lists`` is a filter, or a table with ``filter``, ``unseen_only``, ``min_ratings`` and ``n``.
    The last three may also stand in ``recommend.lists`` itself and then hold for all lists in it.

    Raises:
        ConfigError: a name, a key or a filter that is not one.
    """
    common = {key: _value(f"{_KEY}.{key}", key, value) for key, value in recommend.lists.items() if key in _shared()}
    listed = {name: value for name, value in recommend.lists.items() if name not in common}
    if common and not listed:
        raise ConfigError(
            f'{_KEY} = {dict(recommend.lists)!r} names no list; add one, for example recent = "year >= 2010"'
        )
    first = NamedList(DEFAULT, "", None, recommend.n, recommend.exclude_seen, 0)
    return first, *(_named(name, value, common, recommend) for name, value in listed.items())


def _shared() -> tuple[str, ...]:
    return tuple(key for key in _KINDS if key != "filter")


def _named(name: str, given: Any, common: Mapping[str, Any], recommend: RecommendConfig) -> NamedList:
    key = f"{_KEY}.{name}"
    if not _NAME.fullmatch(name) or name in (DEFAULT, "filter"):
        taken = f"{name!r} is taken" if name in (DEFAULT, "filter") else f"{name!r} is no name of a list"
        raise ConfigError(
            f"{key}: {taken}; names have letters, digits, '_', '.' and '-', 64 at most, start with a letter or digit, "
            f"and are not {DEFAULT!r} or 'filter'"
        )
    if isinstance(given, str):
        given = {"filter": given}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key} = {given!r} must be a filter, for example \"genres contains 'Comedy'\", or a table with "
            f"{', '.join(_KINDS)}"
        )
    unknown = [inner for inner in given if inner not in _KINDS]
    if unknown:
        hint = nearest(unknown[0], list(_KINDS))
        raise ConfigError(f"unknown key {key}.{unknown[0]}{hint}; a list has {', '.join(_KINDS)}")
    values = dict(common) | {inner: _value(f"{key}.{inner}", inner, value) for inner, value in given.items()}
    text = values.get("filter", "").strip()
    tree = parse_filter(text, key) if text else None
    # a list of what the user has seen would be empty if it hid what he has seen
    asks_history = tree is not None and any(test.column in HISTORY_TESTS for test in conditions(tree))
    unseen_only = values.get("unseen_only", recommend.exclude_seen and not asks_history)
    return NamedList(name, text, tree, values.get("n", recommend.n), unseen_only, values.get("min_ratings", 0))


def _value(key: str, name: str, value: Any) -> Any:
    hint, limits = _KINDS[name]
    return checked(key, value, hint, limits)
