"""The two ways to spend a round on events: blocks that step on their own, and sums of gradients."""

from __future__ import annotations

import time

import numpy as np

from fm_spark.core.combine import MoveSum
from fm_spark.core.constant_steps import EventSettings, ItemTable, combine_blocks, fm_on_grid, run_events
from fm_spark.core.event_gradient import FmState, event_gradient_step, event_gradient_sum
from fm_spark.core.fm_events import Events
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.fm_rows import FmWorkspace
from fm_spark.core.optimisers import ADAGRAD


class EventLocalSteps:
    """Design 5B: blocks make SGD steps of their own; the driver combines them by the curvature they saw.

    Attributes:
        dtype: integer type that holds sums of ``RowSum.move`` over a round.
    """

    dtype: type[np.signedinteger] = np.int64

    def block(
        self,
        parameters: FmParameters,
        work: FmWorkspace,
        events: Events,
        items: ItemTable,
        settings: EventSettings,
        key: tuple[int, int, int],
    ) -> MoveSum:
        """Learns from one block; ``parameters`` are the same afterwards. ``key`` is (seed, epoch, block)."""
        begin = time.perf_counter()
        mask = (1 << 64) - 1
        stream = np.array([key[0] & mask, (key[1] << 32) | key[2]], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=stream))
        move = run_events(parameters, work, events, items, settings, rng)
        return fm_on_grid(move, time.perf_counter() - begin)

    def apply(self, parameters: FmParameters, state: FmState | None, total: MoveSum, settings: EventSettings) -> None:
        """Moves ``parameters`` in place by what the round's blocks learnt; there is no other state."""
        combine_blocks(parameters, total)


class EventGradients:
    """Design 5A: blocks return gradient sums at the broadcast point; the driver makes one step.

    Args:
        optimizer: ``adagrad`` or ``adam``; the state must be of it.
    """

    dtype: type[np.signedinteger] = np.int64

    def __init__(self, optimizer: str = ADAGRAD) -> None:
        self._optimizer = optimizer

    def block(
        self,
        parameters: FmParameters,
        work: FmWorkspace,
        events: Events,
        items: ItemTable,
        settings: EventSettings,
        key: tuple[int, int, int],
    ) -> MoveSum:
        """See :meth:`EventLocalSteps.block`."""
        begin = time.perf_counter()
        total = event_gradient_sum(parameters, events, items, settings, (key[0], key[1]))
        return total._replace(seconds=time.perf_counter() - begin)

    def apply(self, parameters: FmParameters, state: FmState | None, total: MoveSum, settings: EventSettings) -> None:
        """Makes the step; ``state`` (see :func:`fm_spark.core.event_gradient.init_state`) must be given."""
        if state is None:
            raise ValueError("gradient sums need an optimiser state: init_state(n_rows, k)")
        event_gradient_step(parameters, state, total, settings.steps, self._optimizer)
