"""Secrets: refused in clear text in a configuration, read from the environment, masked wherever text is shown.

A value of the configuration may hold ``${ENV:NAME}``, which stands for the environment variable NAME. What is stored
with a model or shown is the reference, never what it stands for.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fm_spark.errors import ConfigError

MASK = "***"
_REFERENCE = re.compile(r"\$\{ENV:([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset(
    {"password", "passwd", "pwd", "secret", "secrets", "token", "key", "apikey", "accesskey", "credential"}
    | {"credentials", "passphrase"}
)
# user:password@ in the authority of a URI; s3://KEY@bucket has no colon, and its user part is the key
_USER_PART = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#\s@]*)@")
_ASSIGNED = re.compile(
    r"""(?ix) (?P<name>[\w.-]*(?:password|passwd|secret|token|credential|(?:access|api|account|shared)[._-]?key)[\w.-]*)
    (?P<sign>['"]?\s*[=:]\s*) (?P<value>"[^"]*"|'[^']*'|[^\s,;&)}'"]+)"""
)
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_LEAST_LENGTH = 4  # of a value that is masked wherever it occurs; a shorter one would mask innocent words
_seen: set[str] = set()


class FromEnvironment(str):
    """A value that an environment variable is part of; ``reference`` is the text that the configuration has for it."""

    reference: str

    def __new__(cls, value: str, reference: str = "") -> FromEnvironment:
        """The resolved value and the text that it was resolved from."""
        made = super().__new__(cls, value)
        made.reference = reference
        return made

    def __repr__(self) -> str:
        return repr(self.reference)


def looks_secret(name: str) -> bool:
    """Whether the name of a setting says that its value is a secret: a word of it is password, secret, token, key ...

    Example:
        >>> looks_secret("spark.hadoop.fs.s3a.secret.key"), looks_secret("input.user_column")
        (True, False)
    """
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    return not _WORDS.isdisjoint(words)


def check_not_secret(key: str, value: Any) -> None:
    """Refuses a value that is a secret in clear text; the message names the key and never shows the value.

    Raises:
        ConfigError: the key's name says that it is a secret, or the text holds one: ``user:password@`` in a URI,
            ``password=...``, an access key; and it is no reference to the environment.
    """
    for text in _texts(value):
        clear = _REFERENCE.sub("", text)
        why = "its name says that it is one" if looks_secret(key) and clear else _why_secret(clear)
        if why:
            raise ConfigError(
                f"{key} holds a secret in clear text ({why}; the value is not shown); keep it in an environment "
                "variable and write ${ENV:NAME} in its place, or leave it to the file system's own credentials"
            )


def resolve(key: str, value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """The value with every ``${ENV:NAME}`` replaced by the variable; lists element by element, others as they are.

    Raises:
        ConfigError: the variable is not set, or its name is not that of a variable.
    """
    if isinstance(value, list):
        return [resolve(key, one, environ) for one in value]
    if not isinstance(value, str) or "${ENV:" not in value:
        return value

    def variable(found: re.Match[str]) -> str:
        name = found[1]
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{key} = {value!r} names no environment variable; the form is ${{ENV:NAME}}")
        if name not in environ:
            raise ConfigError(f"{key} = {value!r}: the environment variable {name} is not set; set it")
        if (looks_secret(name) or looks_secret(key)) and len(environ[name]) >= _LEAST_LENGTH:
            _seen.add(environ[name])
        return environ[name]

    return FromEnvironment(_REFERENCE.sub(variable, value), value)


def as_written(value: Any) -> Any:
    """Nested values with what came from the environment turned back into its reference."""
    if isinstance(value, FromEnvironment):
        return value.reference
    if isinstance(value, Mapping):
        return {name: as_written(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(inner) for inner in value]
    return value


def masked(text: str) -> str:
    """The text without secrets: those read from the environment, and whatever has the form of one."""
    for secret in sorted(_seen, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USER_PART.sub(lambda f: f"{f['scheme']}://{MASK}@" if _is_login(f) else f[0], text)
    text = _ASSIGNED.sub(lambda f: f[0] if "${ENV:" in f["value"] else f"{f['name']}{f['sign']}{MASK}", text)
    return _AWS_KEY.sub(MASK, text)


def masked_setting(name: str, value: str) -> str:
    """``name=value`` for showing."""
    return f"{name}={MASK}" if looks_secret(name) and value else masked(f"{name}={value}")


class MaskSecrets(logging.Filter):
    """Masks what a log record says."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through, masked."""
        record.msg, record.args = masked(record.getMessage()), ()
        return True


def _why_secret(text: str) -> str:
    login = _USER_PART.search(text)
    if login and _is_login(login):
        return "a login stands before the host of a URI"
    assigned = _ASSIGNED.search(text)
    if assigned:
        return f"a value is given to {assigned['name']}"
    return "it has the form of an access key" if _AWS_KEY.search(text) else ""


def _is_login(found: re.Match[str]) -> bool:
    """Whether what stands before the ``@`` is more than a name: abfss://container@account is innocent."""
    user, colon, password = found["user"].partition(":")
    return bool(password if colon else user and found["scheme"].lower().startswith("s3"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)  # a password may be a number
