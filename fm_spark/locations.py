"""Folders and files that a configuration names: refused before anything is opened when their text is a trick."""

from __future__ import annotations

import re

from fm_spark.errors import ConfigError

# file systems that Hadoop, and delta-rs for most of them, can open
SCHEMES = ("file", "hdfs", "viewfs", "s3", "s3a", "gs", "abfs", "abfss", "wasb", "wasbs", "adl", "dbfs", "oss", "cosn")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_location(key: str, text: str) -> None:
    """Refuses a path or URI that holds control characters or backticks; whether it is there is found when it is read.

    Raises:
        ConfigError: the message names the key, the value and the cure.
    """
    if _UNPRINTABLE.search(text):
        raise ConfigError(f"{key} = {text!r} holds a control character; give a plain path or URI")
    if "`" in text:
        raise ConfigError(f"{key} = {text!r} holds a backtick; give a path or URI without")


def check_output(key: str, text: str) -> None:
    """:func:`check_location` for what is written to: a scheme of :data:`SCHEMES`, no ``..``, no ``~``, no query.

    Raises:
        ConfigError: the message names the key, the value and the cure.
    """
    check_location(key, text)
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() not in SCHEMES:
        raise ConfigError(f"{key} = {text!r} has the unknown scheme {scheme[1]!r}; known: {', '.join(SCHEMES)}")
    if scheme and not text[scheme.end() :].startswith("/"):
        raise ConfigError(f"{key} = {text!r} is not a URI; the form is {scheme[1]}://host/folder")
    if scheme and re.search(r"[?#]", text):
        raise ConfigError(f"{key} = {text!r} has a query or a fragment; give scheme://host/folder alone")
    if ".." in re.split(r"[/\\]", text) or (scheme and re.search(r"(?i)%2e|%2f|%00", text)):
        raise ConfigError(f"{key} = {text!r} climbs out of a folder ('..'); give the folder itself")
    if text.startswith("~"):
        raise ConfigError(f"{key} = {text!r}: '~' is the shell's and would be a folder of that name; give the path")
