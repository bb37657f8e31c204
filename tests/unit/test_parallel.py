"""Tasks side by side: all of them end, whatever becomes of one."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from fm_spark.parallel import side_by_side


def test_results_come_by_name_in_the_order_given() -> None:
    assert list(side_by_side({"b": lambda: 2, "a": lambda: 1}).items()) == [("b", 2), ("a", 1)]
    assert side_by_side({}) == {}


def test_they_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    assert set(side_by_side({"a": both.wait, "b": both.wait}).values()) == {0, 1}


def test_the_first_failure_is_raised_after_the_others_have_ended() -> None:
    failed = threading.Event()
    ended: list[str] = []

    def fail() -> None:
        failed.set()
        raise ValueError("first")

    def work() -> None:
        assert failed.wait(timeout=30)
        ended.append("work")

    with pytest.raises(ValueError, match="first"):
        side_by_side({"fail": fail, "work": work})
    assert ended == ["work"]


def test_tasks_see_the_context_of_their_caller() -> None:
    word: ContextVar[str] = ContextVar("word", default="")
    word.set("here")
    assert side_by_side({"a": word.get, "b": word.get}) == {"a": "here", "b": "here"}
