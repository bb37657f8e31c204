"""One value of a configuration: its type, its choices, its range."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from fm_spark.errors import ConfigError


def checked(key: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Returns ``value`` converted to ``hint``.

    Args:
        hint: the annotated type: a number, string, flag, list, ``Literal``, or a union of these.
        metadata: legal range and choices, see :func:`fm_spark.config._limits`.

    Raises:
        ConfigError: the message names the key, the value and the cure.
    """
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    converted = next((c for c in (_convert(value, option) for option in options) if c is not None), None)
    if converted is None:
        raise ConfigError(
            f"{key} = {value!r} has the wrong type; expected {' or '.join(_type_name(option) for option in options)}"
        )
    choices = metadata.get("choices") or ()
    for choice in (converted if isinstance(converted, list) else [converted]) if choices else ():
        if choice not in choices:
            hint_text = nearest(str(choice), list(choices))
            raise ConfigError(f"{key} = {value!r} is not allowed{hint_text}; allowed: {', '.join(choices)}")
    if converted != "auto":
        for number in converted if isinstance(converted, list) else [converted]:
            _check_range(key, number, metadata)
    return converted


def _convert(value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) and isinstance(value, str) else None
    if get_origin(hint) is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if get_origin(hint) is list:
        (inner,) = get_args(hint)
        if not isinstance(value, list):
            return None
        items = [_convert(v, inner) for v in value]
        return None if any(i is None for i in items) else items
    if hint is bool:
        return value if isinstance(value, bool) else None
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    return None


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{v}"' for v in get_args(hint))
    if get_origin(hint) is list:
        return f"a list of {_type_name(get_args(hint)[0]).removeprefix('a ')}s"
    if get_origin(hint) is dict:
        return "a table"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}[hint]


def _check_range(key: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    least, most, above = metadata.get("least"), metadata.get("most"), metadata.get("above")
    too_small = (least is not None and value < least) or (above is not None and value <= above)
    too_large = most is not None and value > most
    if too_small or too_large or not math.isfinite(value):
        parts = [
            f"at least {least:g}" if least is not None else "",
            f"above {above:g}" if above is not None else "",
            f"at most {most:g}" if most is not None else "",
        ]
        wanted = " and ".join(p for p in parts if p) or "finite"
        raise ConfigError(f"{key} = {value!r} is out of range; it must be {wanted}")


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that is most like ``word``, as a question; "" when none is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
