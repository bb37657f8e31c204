"""The two ways to spend a round, behind one interface."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from fm_spark.core.combine import MoveSum, adaptive_sum, on_grid
from fm_spark.core.gradient import Sampler, Settings, Workspace
from fm_spark.core.local_steps import run_block
from fm_spark.core.optimisers import ADAGRAD
from fm_spark.core.parameters import Parameters
from fm_spark.core.sequences import Sequences
from fm_spark.core.synchronous import gradient_step, gradient_sum


class Strategy(Protocol):
    """What a block does in a round, and what the driver does with the sum over blocks.

    Attributes:
        dtype: integer type that holds sums of ``RowSum.move`` over a round.
    """

    dtype: type[np.signedinteger]

    def block(
        self,
        parameters: Parameters,
        work: Workspace,
        sequences: Sequences,
        sampler: Sampler,
        settings: Settings,
        key: tuple[int, int, int],
    ) -> MoveSum:
        """Learns from one block; ``parameters`` are the same afterwards. ``key`` is (seed, epoch, block)."""

    def apply(self, parameters: Parameters, total: MoveSum, settings: Settings, n_blocks: int) -> None:
        """Moves ``parameters`` in place by what the round's ``n_blocks`` blocks learnt."""


class LocalSteps:
    """Design 5B: blocks make minibatch AdaGrad steps of their own; the driver applies the adaptive sum.

    Args:
        context: rows of each context field.
    """

    dtype: type[np.signedinteger] = np.int32

    def __init__(self, trust_region: float, context: tuple[int, ...] = ()) -> None:
        self._trust_region, self._context = trust_region, context

    def block(
        self,
        parameters: Parameters,
        work: Workspace,
        sequences: Sequences,
        sampler: Sampler,
        settings: Settings,
        key: tuple[int, int, int],
    ) -> MoveSum:
        """See :class:`Strategy`."""
        begin = time.perf_counter()
        rng = np.random.Generator(np.random.Philox(key=[key[0], (key[1] << 32) | key[2]]))
        move = run_block(parameters, work, sequences, sampler, settings, rng)
        return on_grid(move, parameters, time.perf_counter() - begin)

    def apply(self, parameters: Parameters, total: MoveSum, settings: Settings, n_blocks: int) -> None:
        """See :class:`Strategy`."""
        adaptive_sum(parameters, total, n_blocks, self._trust_region, self._context)


class Synchronous:
    """Design 5A: blocks return gradient sums at the broadcast point; the driver makes one step.

    Args:
        optimizer: ``adagrad`` or ``adam``; the states of the parameters must be of it.
    """

    dtype: type[np.signedinteger] = np.int64

    def __init__(self, optimizer: str = ADAGRAD) -> None:
        self._optimizer = optimizer

    def block(
        self,
        parameters: Parameters,
        work: Workspace,
        sequences: Sequences,
        sampler: Sampler,
        settings: Settings,
        key: tuple[int, int, int],
    ) -> MoveSum:
        """See :class:`Strategy`."""
        begin = time.perf_counter()
        total = gradient_sum(parameters, work, sequences, sampler, settings, (key[0], key[1]))
        return total._replace(seconds=time.perf_counter() - begin)

    def apply(self, parameters: Parameters, total: MoveSum, settings: Settings, n_blocks: int) -> None:
        """See :class:`Strategy`."""
        gradient_step(parameters, total, settings, self._optimizer)
