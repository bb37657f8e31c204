"""How many events of each item the stages of a run may see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fm_spark.training.blocks import STAGES, Block, Slices


@dataclass(frozen=True)
class StageCounts:
    """Events of each item by stage: int64 [n_items]."""

    liked: dict[str, npt.NDArray[np.int64]]
    not_liked: dict[str, npt.NDArray[np.int64]]

    def seen(self) -> dict[str, npt.NDArray[np.int64]]:
        """Both together."""
        return {stage: liked + self.not_liked[stage] for stage, liked in self.liked.items()}


def stage_counts(slices: Slices, n_items: int) -> StageCounts:
    """Counts the events of each item that each stage may see."""

    def count(block: Block) -> npt.NDArray[np.int64]:
        found = []
        for stage in STAGES:
            seen = block.view(stage)
            found += [np.bincount(seen.item[seen.liked == flag], minlength=n_items) for flag in (0, 1)]
        return np.stack(found)

    total = slices.total(count, (2 * len(STAGES), n_items))
    return StageCounts(
        {stage: total[2 * s + 1] for s, stage in enumerate(STAGES)},
        {stage: total[2 * s] for s, stage in enumerate(STAGES)},
    )
