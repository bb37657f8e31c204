"""What the round loop asks of a kind of machine: two kinds, one loop.

:mod:`fm_spark.training.ranker` is the machine over histories (softmax), :mod:`fm_spark.training.event_learner` the one
over single events (squared, logistic, bpr).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pyspark import RDD, SparkContext

from fm_spark.core.combine import MoveSum
from fm_spark.training.blocks import Block

Array = npt.NDArray[Any]


class Learnt(Protocol):
    """The arrays that training moves, with the state of their optimiser."""

    def copy(self) -> Any:
        """The same numbers in arrays of their own."""

    def without_rows(self) -> Any:
        """The same with arrays of no rows: what remains of a candidate that was only tried."""

    def arrays(self) -> dict[str, Array]:
        """Every array by name, for checkpoints; no copies."""

    def largest_norm(self) -> float:
        """The largest norm of a row and of a bias; NaN or infinite when a number is."""


class Workspace(Protocol):
    """Scratch arrays of a worker process."""

    def clear(self) -> None:
        """Forgets what a block left that stopped half-way."""


class Task(Protocol):
    """What a task does with its blocks; travels to the executors with every round, so it holds no arrays."""

    @property
    def dtype(self) -> type[np.signedinteger]:
        """Integer type that holds sums of ``RowSum.move`` over a round."""

    def shape(self, shared: Any) -> tuple[int, int, int]:
        """Factor rows, factors, and rows of biases (linear weights) of the broadcast parameters."""

    def workspace(self, shared: Any) -> Any:
        """Scratch arrays for the broadcast parameters."""

    def block(self, shared: Any, work: Any, block: Block, stream: tuple[int, int, int]) -> MoveSum:
        """Learns from one block; the broadcast parameters are the same afterwards. ``stream`` is (seed, epoch, block).

        Raises:
            FloatingPointError: the block's numbers left the finite ones.
        """


class Learner(Protocol):
    """One kind of machine in one stage; what is learnt (``Any`` here) is its own kind of :class:`Learnt`."""

    def start(self) -> Any:
        """Before the first round."""

    def task(self, settings: Any) -> Task:
        """The work of a round with the settings of its epoch."""

    def shared(self, learnt: Any) -> tuple[object, int]:
        """What is broadcast, and the bytes of its parameters."""

    def apply(self, learnt: Any, total: MoveSum, settings: Any, n_blocks: int) -> None:
        """Moves ``learnt`` in place by what the round's ``n_blocks`` blocks learnt."""

    def end_epoch(self, learnt: Any, settings: Any, epoch: int) -> Any:
        """What is learnt after the epoch (from 0)."""

    def machine(self, learnt: Any) -> Any:
        """What is measured and kept: ``learnt`` itself, or the mean of its snapshots."""

    def metrics(self, sc: SparkContext, blocks: list[RDD[Block]], learnt: Any) -> dict[str, float] | None:
        """Metrics of :meth:`machine` on the validation part; None when there is nothing to validate on."""
