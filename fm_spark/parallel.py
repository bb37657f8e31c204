"""Tasks that do not need each other, side by side: while one waits for Spark's planner, another uses the cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def side_by_side(tasks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Runs every task in a thread of its own, waits for all of them and returns what they returned, by name, in order.

    The threads see the context variables of the caller: commits say which job made them.

    Raises:
        Exception: that of the first task, in the order given, that failed; the others have ended by then.
    """
    if not tasks:
        return {}
    with ThreadPoolExecutor(len(tasks), thread_name_prefix="side") as pool:
        running = {name: pool.submit(copy_context().run, task) for name, task in tasks.items()}
    return {name: future.result() for name, future in running.items()}
