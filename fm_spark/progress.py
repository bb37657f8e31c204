"""Progress of a long step: a bar on a terminal, one log line a step everywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.errors import LiveError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger("fm_spark.progress")


class Bar(Protocol):
    """What a step tells about its progress."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Counts ``steps`` more as done; ``note`` is shown beside them, for example ``loss 3.21``."""


@contextmanager
def progress(total: int | None, description: str) -> Iterator[Bar]:
    """Shows the progress of ``total`` steps (``None``: unknown) on stderr while the block runs.

    A block inside another one logs lines, because a terminal has room for one bar.
    """
    console = Console(stderr=True)
    if not console.is_terminal or not log.isEnabledFor(logging.INFO):
        yield _LogLines(total, description)
        return
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        redirect_stdout=sys.stdout.isatty(),
    )
    try:
        display.start()
    except LiveError:
        yield _LogLines(total, description)
        return
    try:
        yield _RichBar(display, total, description)
    finally:
        display.stop()


class _RichBar:
    def __init__(self, display: Progress, total: int | None, description: str) -> None:
        self._display = display
        self._task = display.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._display.update(self._task, advance=steps, note=note)


class _LogLines:
    def __init__(self, total: int | None, description: str) -> None:
        self._total, self._description, self._done = total, description, 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        of = f"/{self._total}" if self._total is not None else ""
        log.info("%s %d%s%s", self._description, self._done, of, f": {note}" if note else "")
