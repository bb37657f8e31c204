"""Turns any exception into one message and an exit code."""

from __future__ import annotations

import re
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkException

from fm_spark import errors
from fm_spark.errors import FmSparkError

_LAST_LINE_OF_TRACEBACK = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$")


def explain(error: BaseException) -> tuple[str, int]:
    """The message for a person and the exit code: 2 for the user's mistake, 1 for a failure.

    Of Spark's nested exceptions the innermost cause speaks. An ``FmSparkError`` that was raised inside a task is
    recognised by its name, so that it reads as if it had been raised on the driver.
    """
    if isinstance(error, FmSparkError):
        return str(error), error.exit_code
    if isinstance(error, Py4JNetworkError):
        return "lost the connection to Spark's JVM; it may have run out of memory (--conf spark.driver.memory=8g)", 1
    text = _spark_text(error)
    if text is None:
        first = str(error).strip().splitlines()
        return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__, 1
    name, message = _cause(text)
    kind = getattr(errors, name.rpartition(".")[2], None)
    if isinstance(kind, type) and issubclass(kind, FmSparkError):
        return message, kind.exit_code
    return f"{name.rpartition('.')[2]}: {message}" if name else message, 1


def _spark_text(error: BaseException) -> str | None:
    """What the innermost Java cause says of itself, or None when the error is not Spark's."""
    java = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    if java is not None:
        try:
            return _innermost(java)
        except Py4JError:
            return str(error)
    # py4j's own errors name the call first and what is wrong with it after "Trace:"
    return str(error).rpartition("Trace:\n")[2] if isinstance(error, PySparkException | Py4JError) else None


def _innermost(java: Any) -> str:
    cause = java.getCause()
    while cause is not None:
        java, cause = cause, cause.getCause()
    return str(java.toString())


def _cause(text: str) -> tuple[str, str]:
    """Splits ``name: message`` off the last line of a Python traceback, else off the first line of the text."""
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return "", "Spark failed without a message"
    starts = [place for place, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    candidates = [line for line in lines[starts[-1] + 1 :] if line[0] not in " \t"] if starts else lines[:1]
    line = candidates[0] if candidates else lines[0]
    found = _LAST_LINE_OF_TRACEBACK.match(line)
    return (found[1], found[2] or "") if found else ("", line)
