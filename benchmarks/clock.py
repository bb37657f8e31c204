"""What a benchmark is timed with."""

from __future__ import annotations

import time
from collections.abc import Callable


def seconds_of(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
