"""The little language of filters: text into a tree. What the names mean is decided by who evaluates the tree.

    expression = all { OR all }
    all        = one { AND one }
    one        = NOT one | "(" expression ")" | test
    test       = name                                       a yes-or-no column, e.g. seen
               | name (= | == | != | <> | < | <= | > | >=) value
               | name [NOT] IN "(" value { , value } ")"
               | name [NOT] CONTAINS value
               | name IS [NOT] NULL
    name       = a word of letters, digits, "_" and ".", or anything between backticks
    value      = a number, or text in '...' or "..." where a doubled quote stands for one

Words of the language are the same in capitals and small letters; names and texts are not. Only the standard library is
imported here: a filter is read with the configuration, before a JVM is started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fm_spark.errors import ConfigError

Value = str | int | float
_WORDS = ("AND", "OR", "NOT", "IN", "CONTAINS", "IS", "NULL")
_SPELLINGS = {"==": "=", "<>": "!="}
_DEEPEST = 100
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<name>`(?:[^`]|``)+`)
    |(?P<word>[^\W\d][\w.]*)
    |(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """One test of a column.

    Attributes:
        test: ``is`` (a yes-or-no column alone), a comparison (``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``), ``in``,
            ``contains`` or ``null``.
        values: what it is compared with; none for ``is`` and ``null``.
    """

    column: str
    test: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Not:
    """True where ``of`` is not."""

    of: Filter


@dataclass(frozen=True)
class Every:
    """True where every part is."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Some:
    """True where some part is."""

    parts: tuple[Filter, ...]


Filter = Condition | Not | Every | Some


def parse_filter(text: str, key: str) -> Filter:
    """Reads a filter.

    Args:
        key: the configuration key that holds it, for messages.

    Raises:
        ConfigError: the text is no filter; the message shows where.

    Example:
        >>> parse_filter("year >= 2010 AND NOT seen", "recommend.lists.recent")
        Every(parts=(Condition(column='year', test='>=', values=(2010,)), Not(of=Condition(column='seen', test='is'))))
    """
    return _Reader(text, key).whole()


def conditions(tree: Filter) -> Iterator[Condition]:
    """All tests of a filter, from left to right."""
    if isinstance(tree, Condition):
        yield tree
    else:
        for part in (tree.of,) if isinstance(tree, Not) else tree.parts:
            yield from conditions(part)


class _Token(NamedTuple):
    """A piece of the text: its kind (a word of the language, ``name``, ``value``, a sign or ``end``) and place."""

    kind: str
    value: Value
    start: int


class _Reader:
    """Recursive descent over the tokens, one method a rule of the grammar."""

    def __init__(self, text: str, key: str) -> None:
        self._text, self._key = text, key
        self._tokens = list(self._split())
        self._place = 0

    def whole(self) -> Filter:
        tree = self._expression(0)
        if self._next.kind != "end":
            raise self._error("expected AND, OR or the end")
        return tree

    def _split(self) -> Iterator[_Token]:
        place, end = 0, len(self._text.rstrip())
        while place < end:
            found = _TOKEN.match(self._text, place)
            if found is None:
                start = place + len(self._text[place:]) - len(self._text[place:].lstrip())
                what = (
                    "a quote that is not closed" if self._text[start] in "'\"`" else "a character that has no meaning"
                )
                raise self._error(what, start)
            kind, raw = str(found.lastgroup), found[str(found.lastgroup)]
            yield _token(kind, raw, found.end() - len(raw))
            place = found.end()
        yield _Token("end", "", end)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *kinds: str) -> _Token | None:
        """The next token when it is of one of the kinds; it is then used up."""
        token = self._next
        if token.kind not in kinds:
            return None
        self._place += 1
        return token

    def _need(self, kind: str, what: str) -> _Token:
        token = self._take(kind)
        if token is None:
            raise self._error(f"expected {what}")
        return token

    def _expression(self, depth: int) -> Filter:
        parts = [self._all(depth)]
        while self._take("OR"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _all(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._take("AND"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self, depth: int) -> Filter:
        if depth > _DEEPEST:
            raise self._error(f"more than {_DEEPEST} levels of NOT and parentheses")
        if self._take("NOT"):
            return Not(self._one(depth + 1))
        if self._take("("):
            tree = self._expression(depth + 1)
            self._need(")", "a closing parenthesis")
            return tree
        return self._test()

    def _test(self) -> Filter:
        column = str(self._need("name", "the name of a column").value)
        sign = self._take("=", "!=", "<", "<=", ">", ">=")
        if sign:
            return Condition(column, sign.kind, (self._value(),))
        if self._take("IS"):
            negated = self._take("NOT")
            self._need("NULL", "NULL")
            return _negated(Condition(column, "null"), negated)
        negated = self._take("NOT")
        if self._take("IN"):
            return _negated(Condition(column, "in", self._listed()), negated)
        if self._take("CONTAINS"):
            return _negated(Condition(column, "contains", (self._value(),)), negated)
        if negated:
            raise self._error("expected IN or CONTAINS after NOT")
        return Condition(column, "is")

    def _listed(self) -> tuple[Value, ...]:
        self._need("(", "values in parentheses, for example (1990, 1991),")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need(")", "a closing parenthesis")
        return tuple(values)

    def _value(self) -> Value:
        return self._need("value", "a number or text in quotes").value

    def _error(self, what: str, place: int | None = None) -> ConfigError:
        at = self._next.start if place is None else place
        before, rest = self._text[:at], self._text[at:].strip()
        seen = f"{rest[:30]!r}" if rest else "the end"
        where = f" after {before.strip()[-30:]!r}" if before.strip() else ""
        return ConfigError(
            f"{self._key} = {self._text!r} is not a filter: {what}, found {seen}{where}; a filter looks like "
            "genres contains 'Comedy' AND (year >= 2010 OR NOT tags contains 'slow')"
        )


def _token(kind: str, raw: str, start: int) -> _Token:
    if kind == "number":
        whole = re.fullmatch(r"[+-]?\d+", raw)
        return _Token("value", int(raw) if whole else float(raw), start)
    if kind == "text":
        return _Token("value", raw[1:-1].replace(raw[0] * 2, raw[0]), start)
    if kind == "name":
        return _Token("name", raw[1:-1].replace("``", "`"), start)
    if kind == "word":
        upper = raw.upper()
        return _Token(upper, raw, start) if upper in _WORDS else _Token("name", raw, start)
    return _Token(_SPELLINGS.get(raw, raw), raw, start)


def _negated(test: Condition, negated: _Token | None) -> Filter:
    return Not(test) if negated else test
