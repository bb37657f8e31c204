"""What stands against committing rows, said in one message: the column, what it must be, and up to five rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fm_spark.errors import TableError
from fm_spark.tables.contracts import Column, Contract

SHOWN_ROWS = 5
_SHOWN_LETTERS = 60

Key = tuple[object, ...]


@dataclass(frozen=True)
class Rule:
    """What every row must fulfil in one column.

    Attributes:
        kind: ``present`` (not null), ``check`` (the column's check, which null fulfils) or ``own`` (rows of this run).
        words: the rule as a person reads it.
    """

    kind: Literal["present", "check", "own"]
    column: Column
    words: str


@dataclass(frozen=True)
class Broken:
    """A rule that rows break: how many, and the first of them by key with the value that breaks it."""

    rule: Rule
    rows: int
    examples: Sequence[tuple[Key, object]]


@dataclass(frozen=True)
class Repeated:
    """Keys that occur more than once: how many, and the first of them with the number of their rows."""

    keys: int
    examples: Sequence[tuple[Key, int]]


def rules(contract: Contract, run_id: str) -> list[Rule]:
    """The rules of a contract for the rows of a run."""
    made = [Rule("present", c, f"no value in {c.name}") for c in contract.columns if not c.nullable]
    made += [Rule("check", c, f"{c.name} must be {c.rule}") for c in contract.columns if c.condition]
    if contract.mode == "by_run":
        made += [Rule("own", c, f"run_id must be {run_id}") for c in contract.columns if c.name == "run_id"]
    return made


def refuse(contract: Contract, rows: int, broken: Sequence[Broken], repeated: Repeated) -> None:
    """Raises a TableError that names all problems; returns when there is none."""
    said = [_broken(one, rows) for one in broken if one.rows]
    if repeated.keys:
        shown = ", ".join(f"{_key(key)} {n} times" for key, n in repeated.examples)
        said.append(f"{repeated.keys:,} keys occur more than once: {shown}")
    if said:
        raise TableError(
            f"table {contract.name}: nothing was written, because rows break its contract "
            f"(they are named by {', '.join(contract.key)}): {'; '.join(said)}"
        )


def _broken(broken: Broken, rows: int) -> str:
    names_value = broken.rule.kind != "present"
    shown = (_key(key) + (f" has {_text(value)}" if names_value else "") for key, value in broken.examples)
    return f"{broken.rule.words} ({broken.rows:,} of {rows:,} rows): {', '.join(shown)}"


def _key(key: Key) -> str:
    return f"({', '.join(map(_text, key))})"


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."
