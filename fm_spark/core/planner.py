"""What a training will cost, before the first round: features, bytes that travel, memory, seconds.

Everything follows from counts. What a kind of machine costs is its own module's: :mod:`fm_spark.core.ranker_cost` and
:mod:`fm_spark.core.event_cost`. The formulas and where the constants come from are in docs/performance.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fm_spark.core.parameters import Doubles

MIB = 2**20

# Seconds of one core (python -m benchmarks.kernel measures them again).
SECONDS_PER_GRID, SECONDS_PER_ADD, SECONDS_PER_STEP = 1.4e-9, 3.5e-9, 1.7e-8
# Seconds a byte, pickling and what files, sockets and the JVM add: parameters out, sums back and added up.
SECONDS_PER_BYTE_SENT, SECONDS_PER_BYTE_SUMMED = 2.5e-9, 4.6e-9
SECONDS_PER_ROUND = 0.15

# A started process with what it imports: JVM heap, Python of the driver, Python worker.
BASE_HEAP, BASE_DRIVER, BASE_WORKER = 512 * MIB, 400 * MIB, 250 * MIB


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """What is trained, with everything resolved, and on how many cores.

    Attributes:
        events, positives: events that training may see, and the liked ones among them.
        side_features, context_features: rows of the static features of items, and of times and user columns.
        machines: of the ensemble; 1 without one.
        local_steps: whether blocks make steps of their own, or return sums of gradients.
        fits: machines (or ensembles) that the driver keeps until the run is saved (candidates, evaluation, publish).
        tasks: tasks of a round; cores: those of one executor.
    """

    users: int
    events: int
    positives: int
    items: int
    side_features: int
    context_features: int = 0
    k: int
    machines: int = 1
    local_steps: bool = True
    blocks: int
    rounds: int
    fits: int
    tasks: int
    executors: int
    cores: int

    @abstractmethod
    def cost(self, counts: Doubles) -> Cost:
        """What one machine costs; ``counts`` float64 [items], events of each item."""


class Rows(NamedTuple):
    """Expected rows that a part of a round touches: of all factor tables, and of the biases or linear weights."""

    factors: float
    items: float


class Cost(NamedTuple):
    """What one machine costs.

    Attributes:
        features: with one for unseen values in each field; parameters: learnt numbers.
        broadcast: bytes of the parameters with what the blocks need besides.
        kept: bytes of a fit on the driver.
        block, task, whole: rows that one block, one task and a whole round touch.
        row_bytes: of a factor row and of a bias row in what tasks return.
        summed: bytes of a factor row of a sum in memory.
        scratch: bytes of a worker that follow from the size of the parameters.
        cached: bytes of the packed events.
        compute: seconds of one core for the arithmetic of an epoch, without what rows cost that moved.
    """

    features: int
    parameters: int
    broadcast: int
    kept: int
    block: Rows
    task: Rows
    whole: Rows
    row_bytes: tuple[float, float]
    summed: int
    scratch: int
    cached: int
    compute: float


@dataclass(frozen=True)
class Transport:
    """Bytes: the parameters as they are broadcast, what one task and all tasks of a round return, their sum."""

    broadcast: int
    task: int
    aggregated: int
    total: int


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of training; ``cached`` are the packed events, over all executors.

    In a local master driver and executor share one JVM, so that it needs both heaps.
    """

    driver_heap: int
    driver_python: int
    executor_heap: int
    worker: int
    cached: int


@dataclass(frozen=True)
class Seconds:
    """Seconds of an epoch on the wall clock, by part."""

    broadcast: float
    compute: float
    aggregate: float
    step: float

    @property
    def epoch(self) -> float:
        """All parts together."""
        return self.broadcast + self.compute + self.aggregate + self.step


@dataclass(frozen=True)
class Plan:
    """The prediction.

    Attributes:
        n_features: features of the machine, with one for unseen values in each field.
        n_parameters: learnt numbers: k of each feature and the biases.
        rows: factor rows that one task returns in a round, of all machines.
        counts: float64 [items], the events of each item that it was made for.
    """

    workload: Workload
    n_features: int
    n_parameters: int
    rows: int
    transport: Transport
    memory: Memory
    seconds: Seconds
    counts: Doubles = field(repr=False, compare=False)


def zipf_counts(events: int, items: int, users: int) -> Doubles:
    """Events of each item when only totals are known, float64 [items]: count proportional to 1 / rank.

    No item has more events than there are users; what an item loses so goes to the others in proportion.
    """
    law = 1.0 / np.arange(1, items + 1)
    counts = np.zeros(items)
    free = np.ones(items, np.bool_)
    for _ in range(32):
        rest = events - users * (items - free.sum())
        counts = np.where(free, rest * law / max(law[free].sum(), 1e-300), users)
        over = free & (counts > users)
        if not over.any():
            break
        free &= ~over
    return np.minimum(counts, users)


def touched(counts: Doubles, share: float) -> Doubles:
    """Probability that a part of the users holds an item, float64 [n]: 1 - (1 - share)^count.

    The users of an item's events are different ones, each in the part with probability ``share``.
    """
    missing = np.exp(counts * np.log1p(-share)) if share < 1.0 else np.zeros_like(counts)
    return np.minimum(1.0 - missing, counts * share)


def touched_or_drawn(liked: Doubles, share: float, draws: float, power: float) -> float:
    """Expected items that a part of the users likes, or that one of its negatives is.

    Args:
        liked: float64 [items], liked events of each item.
        draws: negatives of the part; an item is drawn with probability proportional to (liked + 1)^power.
    """
    drawn = (liked + 1.0) ** power
    missed = np.exp(draws * np.log1p(-np.minimum(drawn / drawn.sum(), 0.5)))
    return float((1.0 - (1.0 - touched(liked, share)) * missed).sum())


def gradient_row_bytes(k: int) -> tuple[float, float]:
    """Bytes of a factor row and of a bias row of a sum of gradients, 32 bits a number."""
    return 4.0 * k + 9, 13.0


def plan(w: Workload, counts: Doubles | None = None) -> Plan:
    """Predicts the cost of a training.

    Args:
        counts: float64 [items], events of each item; ``None`` takes :func:`zipf_counts`.
    """
    if counts is None:
        counts = zipf_counts(w.events, w.items, w.users)
    cost = w.cost(counts)
    transport = _transport(w, cost)
    return Plan(
        w,
        cost.features,
        cost.parameters * w.machines,
        round(cost.task.factors * w.machines),
        transport,
        _memory(w, transport, cost),
        _seconds(w, transport, cost),
        counts,
    )


def _transport(w: Workload, cost: Cost) -> Transport:
    wide, narrow = cost.row_bytes
    of_task, total = (
        round(w.machines * (rows.factors * wide + rows.items * narrow)) for rows in (cost.task, cost.whole)
    )
    return Transport(w.machines * cost.broadcast, of_task, of_task * w.tasks, total)


def _memory(w: Workload, t: Transport, cost: Cost) -> Memory:
    row = 4 * w.k + 8  # of the parameters, in memory
    tables = 2 * cost.features * (4 * w.k * w.machines + 100)  # fm_parameters of two models on their way to Spark
    undo = cost.block.factors * (3 * row + cost.summed)  # values before, after, the difference, and that on the grid
    packed = 2 * cost.cached / (w.blocks * w.rounds)
    sums = w.machines * (cost.scratch + cost.task.factors * cost.summed)
    worker = BASE_WORKER + t.broadcast + sums + undo + 2 * t.task + packed
    at_step = t.aggregated + 4 * w.machines * cost.whole.factors * cost.summed
    python = BASE_DRIVER + 3 * t.broadcast + w.fits * w.machines * cost.kept + max(at_step, 2 * tables)
    heap = BASE_HEAP + max(2 * t.broadcast + 3 * t.aggregated, 2 * tables)
    executor = BASE_HEAP + t.broadcast + 2 * t.task * min(w.cores, w.tasks)
    return Memory(round(heap), round(python), round(executor), round(worker), cost.cached)


def _seconds(w: Workload, t: Transport, cost: Cost) -> Seconds:
    moved = w.rounds * w.blocks * cost.block.factors * w.k
    compute = w.machines * (cost.compute + moved * (SECONDS_PER_GRID + SECONDS_PER_ADD))
    at_once = min(w.tasks, w.executors * w.cores)
    waves = np.ceil(w.tasks / at_once) * at_once / w.tasks  # the last wave may leave cores idle
    return Seconds(
        w.rounds * t.broadcast * SECONDS_PER_BYTE_SENT,
        float(compute / at_once * waves),
        w.rounds * (SECONDS_PER_ROUND + t.aggregated * SECONDS_PER_BYTE_SUMMED),
        w.rounds * w.machines * cost.whole.factors * w.k * SECONDS_PER_STEP,
    )
