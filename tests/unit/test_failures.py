"""Exceptions as one message and an exit code."""

from __future__ import annotations

from typing import Any

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from fm_spark import errors
from fm_spark.failures import explain

IN_A_TASK = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "worker.py", line 12, in main
    process()
  File "x.py", line 3, in f
    raise {what}
{name}: {message}
"""


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FmSparkError) and kind is not errors.FmSparkError
    ],
)
def test_our_own_errors_speak_for_themselves(kind: type[errors.FmSparkError]) -> None:
    assert explain(kind("row 3 is wrong")) == ("row 3 is wrong", kind.exit_code)
    not_the_users = (errors.DivergenceError, errors.StorageError, errors.LockError, errors.GateError)
    assert kind.exit_code == (1 if kind in not_the_users else 2)


def test_a_python_error_is_named_with_its_first_line() -> None:
    assert explain(KeyError("x")) == ("KeyError: 'x'", 1)
    assert explain(ValueError("first\nsecond")) == ("ValueError: first", 1)
    assert explain(ValueError()) == ("ValueError", 1)


def test_an_error_of_py4j_says_what_is_wrong_with_the_call() -> None:
    text = "An error occurred while calling o7.foo. Trace:\npy4j.Py4JException: Method foo([]) does not exist\n\tat x.Y"
    assert explain(Py4JError(text)) == ("Py4JException: Method foo([]) does not exist", 1)


def test_a_lost_jvm_names_the_likely_reason() -> None:
    message, code = explain(Py4JNetworkError("answer from Java side is empty"))
    assert code == 1
    assert "spark.driver.memory" in message


def test_an_error_in_a_task_is_that_of_the_tasks_last_line() -> None:
    text = IN_A_TASK.format(what="ValueError", name="ValueError", message="bad value")
    assert explain(PySparkException(message=text)) == ("ValueError: bad value", 1)


def test_our_own_error_in_a_task_keeps_its_message_and_code() -> None:
    text = IN_A_TASK.format(what="InputError", name="fm_spark.errors.InputError", message="row 3: no rating")
    assert explain(PySparkException(message=text)) == ("row 3: no rating", 2)


class FakeJava:
    """A Java exception as py4j shows it."""

    def __init__(self, text: str, cause: FakeJava | None = None) -> None:
        self.text, self.cause = text, cause

    def getCause(self) -> FakeJava | None:
        return self.cause

    def toString(self) -> str:
        return self.text


def test_of_nested_java_errors_the_innermost_speaks() -> None:
    class Captured(Exception):
        _origin: Any = FakeJava("a.SparkException: outer", FakeJava("java.io.IOException: No space left\n\tat x.Y"))

    assert explain(Captured()) == ("IOException: No space left", 1)
