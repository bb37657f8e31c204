"""What a training will cost, before the first round: features, bytes that travel, memory, seconds.

Everything follows from counts. The formulas and where the constants come from are in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fm_spark.core.combine import on_grid
from fm_spark.core.gradient import Workspace
from fm_spark.core.history import windows
from fm_spark.core.local_steps import Move
from fm_spark.core.parameters import Doubles, init_parameters

MIB = 2**20

# Seconds of one core (python -m benchmarks.kernel measures them again).
SECONDS_PER_PAIR, SECONDS_PER_PRODUCT = 1.0e-9, 6.8e-11
SECONDS_PER_SCAN, SECONDS_PER_SCAN_FACTOR = 7e-8, 2.6e-9
SECONDS_PER_GRID, SECONDS_PER_ADD, SECONDS_PER_STEP = 1.4e-9, 3.5e-9, 1.7e-8
# Seconds a byte, pickling and what files, sockets and the JVM add: parameters out, sums back and added up.
SECONDS_PER_BYTE_SENT, SECONDS_PER_BYTE_SUMMED = 2.5e-9, 4.6e-9
SECONDS_PER_ROUND = 0.15

# A started process with what it imports: JVM heap, Python of the driver, Python worker.
BASE_HEAP, BASE_DRIVER, BASE_WORKER = 512 * MIB, 400 * MIB, 250 * MIB
# Packed: item 4, liked 1, weight 4, part 1, validation 1; per user id 8 and pointer 8.
_BYTES_PER_EVENT, _BYTES_PER_USER = 11, 16


@dataclass(frozen=True)
class Workload:
    """What is trained, with everything resolved, and on how many cores.

    Attributes:
        events, positives: events that training may see, and the liked ones among them.
        fits: machines that the driver keeps until the run is saved (candidates, evaluation, publish).
        tasks: tasks of a round; cores: those of one executor.
    """

    users: int
    events: int
    positives: int
    items: int
    side_features: int
    k: int
    decays: tuple[float, ...]
    blocks: int
    rounds: int
    negatives: int
    negatives_power: float
    batch_size: int
    chunk_size: int
    fits: int
    tasks: int
    executors: int
    cores: int


class Rows(NamedTuple):
    """Expected rows that a part of a round touches: of all factor tables, and of the item biases."""

    factors: float
    items: float


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
        rows: factor rows that one task returns in a round.
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


def scanned_events(decay: float, events: float, positives: float, mean_seen: float, chunk_size: int) -> float:
    """Events that the recursion of one decay visits in an epoch.

    A chunk of positives starts its recursion anew up to a window before its first event. With histories of
    exponentially distributed lengths an event has on average half of ``mean_seen`` events before it.

    Args:
        mean_seen: mean over events of the length of the user's history that the event belongs to.
    """
    if not positives:
        return 0.0
    chunk = chunk_size * events / positives
    window = float(windows(np.array([decay]))[0])
    again = min(window, mean_seen / 2) * (1 if mean_seen > chunk else mean_seen / chunk)
    return events * (1 + again / chunk)


def seen_share(decay: float, w: Workload) -> float:
    """Share of the events that a later positive of the user sees in the bag of that decay."""
    length = max(1, round(w.events / max(1, w.users)))
    later = np.minimum(np.arange(length), windows(np.array([decay]))[0])
    return float(np.mean(1.0 - (1.0 - w.positives / max(1, w.events)) ** later))


def touched(counts: Doubles, share: float) -> Doubles:
    """Probability that a part of the users holds an item, float64 [n]: 1 - (1 - share)^count.

    The users of an item's events are different ones, each in the part with probability ``share``.
    """
    missing = np.exp(counts * np.log1p(-share)) if share < 1.0 else np.zeros_like(counts)
    return np.minimum(1.0 - missing, counts * share)


def touched_rows(w: Workload, counts: Doubles, parts: int) -> Rows:
    """Expected rows that one of ``parts`` equal parts of a round touches.

    Args:
        counts: float64 [items], events of each item; liked ones are taken to be the same share of all.
    """
    share = 1.0 / (w.rounds * parts)
    liked = w.positives / max(1, w.events)
    rows = 0.0
    for decay in w.decays:
        seen = seen_share(decay, w)
        rows += sum(float(touched(counts * seen * kind, share).sum()) for kind in (liked, 1.0 - liked))
    drawn = (counts * liked + 1.0) ** w.negatives_power
    minibatches = w.positives // (w.blocks * w.rounds * w.batch_size) + 1
    draws = w.blocks / parts * minibatches * w.negatives
    missed = np.exp(draws * np.log1p(-np.minimum(drawn / drawn.sum(), 0.5)))
    items = float((1.0 - (1.0 - touched(counts * liked, share)) * missed).sum())
    return Rows(rows + items, items)


def row_bytes(k: int) -> tuple[float, float]:
    """Bytes of a factor row and of a bias row in what tasks return, taken from a sum of a few rows that moved.

    Rows that moved far may be sent with more bytes; these are few.
    """
    n = 8  # the least that has whole bytes when a flag is one bit
    start = init_parameters(0, np.zeros(n, np.int64), k, 0.0, 0)
    rows, none = np.arange(n, dtype=np.int32), np.empty(0, np.int32)
    nothing = Move(
        none, np.zeros((0, k), np.float32), np.empty(0), none, np.empty(0, np.float32), np.empty(0), 0.0, 0.0
    )
    wide = nothing._replace(rows=rows, factors=np.zeros((n, k), np.float32), state=np.ones(n))
    narrow = nothing._replace(items=rows, bias=np.zeros(n, np.float32), bias_state=np.ones(n))
    return on_grid(wide, start).nbytes() / n, on_grid(narrow, start).nbytes() / n


def plan(w: Workload, counts: Doubles | None = None) -> Plan:
    """Predicts the cost of a training.

    Args:
        counts: float64 [items], events of each item; ``None`` takes :func:`zipf_counts`.
    """
    if counts is None:
        counts = zipf_counts(w.events, w.items, w.users)
    block, task, whole = (touched_rows(w, counts, parts) for parts in (w.blocks, w.tasks, 1))
    fields = 2 * len(w.decays) + 1 + (w.side_features > 0)
    n_features = (2 * len(w.decays) + 1) * w.items + w.side_features + fields
    transport = _transport(w, task, whole)
    return Plan(
        w,
        n_features,
        n_features * w.k + w.items + w.side_features,
        round(task.factors),
        transport,
        _memory(w, transport, (block, task, whole), n_features),
        _seconds(w, transport, block, whole),
        counts,
    )


def _transport(w: Workload, task: Rows, whole: Rows) -> Transport:
    wide, narrow = row_bytes(w.k)
    # every array has a row per item or a multiple of it, so one item's machine scales up
    broadcast = init_parameters(len(w.decays), np.zeros(1, np.int64), w.k, 0.0, 0).nbytes() * w.items
    of_task, total = (round(rows.factors * wide + rows.items * narrow) for rows in (task, whole))
    return Transport(broadcast, of_task, of_task * w.tasks, total)


def _memory(w: Workload, t: Transport, parts: tuple[Rows, Rows, Rows], n_features: int) -> Memory:
    block, task, whole = parts
    row, summed = 4 * w.k + 8, 4 * w.k + 24  # a row of the parameters and of a sum, in memory
    tables = 2 * n_features * (4 * w.k + 100)  # fm_parameters of two models on their way to Spark
    machine = Workspace((2 * len(w.decays) + 1, w.k), 1)  # of one item
    scratch = machine.nbytes() + (2 * len(w.decays) + 1) * summed
    cached = _BYTES_PER_EVENT * w.events + _BYTES_PER_USER * w.users
    undo = block.factors * (3 * row + summed)  # values before, after, the difference, and that on the grid
    packed = 2 * cached / (w.blocks * w.rounds)
    worker = BASE_WORKER + t.broadcast + scratch * w.items + undo + task.factors * summed + 2 * t.task + packed
    python = BASE_DRIVER + (3 + w.fits) * t.broadcast + max(t.aggregated + 4 * whole.factors * summed, 2 * tables)
    heap = BASE_HEAP + max(2 * t.broadcast + 3 * t.aggregated, 2 * tables)
    executor = BASE_HEAP + t.broadcast + 2 * t.task * min(w.cores, w.tasks)
    return Memory(round(heap), round(python), round(executor), round(worker), cached)


def _seconds(w: Workload, t: Transport, block: Rows, whole: Rows) -> Seconds:
    pairs = w.positives * w.negatives
    mean_seen = 2 * w.events / max(1, w.users)
    scanned = sum(scanned_events(d, w.events, w.positives, mean_seen, w.chunk_size) for d in w.decays)
    moved = w.rounds * w.blocks * block.factors * w.k
    compute = pairs * (SECONDS_PER_PAIR + w.k * SECONDS_PER_PRODUCT)
    compute += scanned * (SECONDS_PER_SCAN + w.k * SECONDS_PER_SCAN_FACTOR)
    compute += moved * (SECONDS_PER_GRID + SECONDS_PER_ADD)
    at_once = min(w.tasks, w.executors * w.cores)
    waves = np.ceil(w.tasks / at_once) * at_once / w.tasks  # the last wave may leave cores idle
    return Seconds(
        w.rounds * t.broadcast * SECONDS_PER_BYTE_SENT,
        float(compute / at_once * waves),
        w.rounds * (SECONDS_PER_ROUND + t.aggregated * SECONDS_PER_BYTE_SUMMED),
        w.rounds * whole.factors * w.k * SECONDS_PER_STEP,
    )
