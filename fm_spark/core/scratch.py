"""Arrays that kernels write to, kept between calls: fresh ones of a megabyte cost more in page faults than to fill."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class Scratch:
    """Float32 arrays by name, grown when a larger one is asked for; what a name held before is overwritten."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[np.float32]] = {}

    def take(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        """An uninitialised C-contiguous array of the shape."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = np.empty(size + size // 4, np.float32)
        return held[:size].reshape(shape)
