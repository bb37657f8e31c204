"""One round: broadcast the parameters, let every block learn, sum what the tasks return, apply the sum."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from pyspark import RDD, SparkContext

from fm_spark.core.combine import LOSS_GRID, Accumulator, MoveSum, merge, unusable
from fm_spark.errors import DivergenceError
from fm_spark.training.blocks import Block
from fm_spark.training.learner import Learner, Task, Workspace
from fm_spark.training.recipes import AnySettings

# with more partitions than this, or more bytes, sums are added up in a tree of tasks before the driver sees them
_FLAT_PARTITIONS, _FLAT_BYTES = 16, 256 * 2**20


@dataclass(frozen=True)
class RoundRecord:
    """What a round cost and learnt; seconds and bytes as in ``training_history``."""

    loss: float
    seconds_broadcast: float
    seconds_compute: float
    seconds_aggregate: float
    seconds_step: float
    bytes_broadcast: int
    bytes_aggregated: int
    events: int


@dataclass(frozen=True)
class RoundKey:
    """Where in the training a round is; with a block's number it makes the block's stream of random numbers."""

    seed: int
    epoch: int
    round: int
    n_blocks: int


# Scratch arrays of a worker process, as large as the parameters: made once, not once a task. The key is their shape.
_scratch: dict[str, tuple[object, Any]] = {}


def _workspace(task: Task, shared: object) -> Workspace:
    key = (type(task), task.shape(shared))
    if _scratch.get("work", (None,))[0] != key:
        _scratch["work"] = (key, task.workspace(shared))
    return cast(Workspace, _scratch["work"][1])


def _accumulator(task: Task, shared: object) -> Accumulator:
    key = (task.shape(shared), task.dtype)
    if _scratch.get("sums", (None,))[0] != key:
        rows, k, biases = task.shape(shared)
        _scratch["sums"] = (key, Accumulator((rows, k), biases, task.dtype))
    return cast(Accumulator, _scratch["sums"][1])


def tree_depth(partitions: int, returned: int) -> int:
    """Depth of the tree that sums a round; the sum has the same bits for any.

    Args:
        returned: bytes that all tasks return, as measured in the round before; 0 in the first one.
    """
    return 2 if partitions > _FLAT_PARTITIONS or returned > _FLAT_BYTES else 1


def run_round(
    sc: SparkContext,
    blocks: RDD[Block],
    learner: Learner,
    learnt: Any,
    settings: AnySettings,
    key: RoundKey,
    last: RoundRecord | None = None,
) -> RoundRecord:
    """Runs one round and moves ``learnt``, what the learner has learnt so far, in place.

    Args:
        last: the round before, whose measured size the next one is planned by.

    Raises:
        DivergenceError: a loss or a move is not finite.
    """
    begin = time.perf_counter()
    value, size = learner.shared(learnt)
    shared = sc.broadcast(value)
    sent = time.perf_counter()
    try:
        # None instead of a zero of the model's size: nothing but the closure travels to the tasks
        work = partial(_learn, shared=shared, task=learner.task(settings), key=key)
        moves: RDD[MoveSum] = blocks.mapPartitions(work)
        depth = tree_depth(blocks.getNumPartitions(), last.bytes_aggregated if last else 0)
        total = moves.treeAggregate(None, merge, merge, depth)
    finally:
        shared.destroy()
    summed = time.perf_counter()
    if total is None:
        raise DivergenceError(f"round {key.round + 1} of epoch {key.epoch + 1} has no events to learn from")
    _check(total, settings, key)
    learner.apply(learnt, total, settings, key.n_blocks)
    done = time.perf_counter()
    events = total.events / LOSS_GRID
    return RoundRecord(
        loss=total.loss / LOSS_GRID / events if events else 0.0,
        seconds_broadcast=sent - begin,
        seconds_compute=total.seconds,
        seconds_aggregate=summed - sent,
        seconds_step=done - summed,
        bytes_broadcast=size,
        bytes_aggregated=total.sent,
        events=round(events),
    )


def _learn(blocks: Iterator[Block], *, shared: Any, task: Task, key: RoundKey) -> Iterator[MoveSum]:
    value = shared.value
    work, total = _workspace(task, value), _accumulator(task, value)
    # what a task that stopped half-way in this worker may have left
    work.clear()
    total.take()
    for block in blocks:
        stream = (key.seed, key.epoch, key.round * key.n_blocks + block.number)
        try:
            total.add(task.block(value, work, block, stream))
        except FloatingPointError as error:
            yield unusable(str(error), task.shape(value)[1])
            return
    learnt = total.take()
    if learnt is not None:
        yield learnt._replace(sent=learnt.nbytes())


def _check(total: MoveSum, settings: AnySettings, key: RoundKey) -> None:
    if total.problem:
        raise diverged(total.problem, settings, key)
    loss = total.loss / max(1, total.events)
    if not np.isfinite(loss) or loss > 1e4:
        raise diverged(f"the loss is {loss:g}", settings, key)


def diverged(what: str, settings: AnySettings, key: RoundKey) -> DivergenceError:
    """The error for training that left the finite numbers."""
    return DivergenceError(
        f"training diverged in epoch {key.epoch + 1}, round {key.round + 1}: {what} at learning rate "
        f"{settings.learning_rate:g}; lower train.learning_rate, for example to {settings.learning_rate / 2:g}, "
        "or raise train.l2; the models are as they were before this run"
    )
