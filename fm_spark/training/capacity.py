"""Does a plan fit in the memory that there is? What to set so that it does."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pyspark.sql import SparkSession

from fm_spark.config import Config
from fm_spark.core.event_cost import EventWorkload
from fm_spark.core.planner import BASE_WORKER, MIB, Plan, Workload, plan
from fm_spark.errors import CapacityError
from fm_spark.events.catalogue import Catalogue
from fm_spark.training.planning import cluster_of, counts_of_tables, plan_training
from fm_spark.training.resolve import DataSize

GIB = 1024 * MIB
# a task's result is one Java array
_LARGEST_RESULT = 2**31 - 1
_UNITS = {"b": 1, "k": 2**10, "m": MIB, "g": GIB, "t": 1024 * GIB, "p": 2**50}


@dataclass(frozen=True)
class Limits:
    """Bytes that there are; ``None`` where that cannot be known.

    Attributes:
        local: driver and tasks share one JVM and one machine.
        max_result: spark.driver.maxResultSize.
        machine: free memory of the driver's machine or container.
        executor_python: memory of an executor beside its heap, which its Python workers share.
    """

    local: bool
    driver_heap: int
    max_result: int | None
    machine: int | None
    executor_heap: int | None
    executor_python: int | None


class _Need(NamedTuple):
    """One thing that must fit: what it is, bytes needed and there, name of the limit, cure besides a smaller k."""

    what: str
    needed: float
    limit: float | None
    source: str
    cure: str


def check_training(
    spark: SparkSession, config: Config, size: DataSize, catalogue: Catalogue, context_features: int = 0
) -> None:
    """Plans the training of a run's tables and checks that this session can hold it.

    Args:
        context_features: rows of the fields of time and of users' columns.

    Raises:
        CapacityError: as :func:`check_fits`.
    """
    counts = counts_of_tables(config, size, catalogue, context_features)
    check_fits(plan_training(config, counts, cluster_of(spark)), spark)


def check_fits(made: Plan, spark: SparkSession) -> None:
    """Compares a plan with the memory of the session and its machine.

    Raises:
        CapacityError: something does not fit; the message has the number, the limit and the cure.
    """
    problem = shortfall(made, limits_of(spark))
    if problem:
        raise CapacityError(problem)


def shortfall(made: Plan, limits: Limits) -> str:
    """The first thing that does not fit, in one sentence; "" when everything does."""
    short = next(_short(made, limits), None)
    if short is None:
        return ""
    w = made.workload
    smaller = (2**e for e in range((w.k - 1).bit_length() - 1, -1, -1))
    fits = next((k for k in smaller if next(_short(plan(replace(w, k=k), made.counts), limits), None) is None), None)
    cures = [f"train.k <= {fits}" if fits else "", short.cure]
    return (
        f"train.k = {w.k} with {_who(w)} needs {gib(short.needed)} {short.what}, {short.source} is "
        f"{gib(short.limit or 0)}; use {' or '.join(filter(None, cures))}"
    )


def _who(w: Workload) -> str:
    if isinstance(w, EventWorkload) and w.user:
        return f"{w.users:,} users and {w.items:,} items"
    return f"{w.items:,} items"


def _short(made: Plan, limits: Limits) -> Iterator[_Need]:
    return (need for need in _needs(made, limits) if need.limit is not None and need.needed > need.limit)


def _needs(made: Plan, limits: Limits) -> list[_Need]:
    memory, transport, w = made.memory, made.transport, made.workload
    heap = driver_heap(made, limits.local)
    beside = w.cores * (memory.worker - BASE_WORKER)
    on_machine = memory.driver_python + heap + (w.cores * memory.worker if limits.local else 0)
    return [
        _Need(
            "in one task's result", transport.task, _LARGEST_RESULT, "the most that Spark can send",
            "more tasks (a larger spark.default.parallelism)",
        ),
        _Need(
            "on the driver's heap", heap, limits.driver_heap, "spark.driver.memory",
            f"--conf spark.driver.memory={conf_size(heap * 1.2)}",
        ),
        _Need(
            "for the results of a round", transport.aggregated, limits.max_result, "spark.driver.maxResultSize",
            f"--conf spark.driver.maxResultSize={conf_size(transport.aggregated * 1.2)}",
        ),
        _Need(
            "on an executor's heap", memory.executor_heap, limits.executor_heap, "spark.executor.memory",
            f"--conf spark.executor.memory={conf_size(memory.executor_heap * 1.2)}",
        ),
        _Need(
            "for the Python workers of an executor", beside, limits.executor_python, "spark.executor.memoryOverhead",
            f"--conf spark.executor.memoryOverhead={conf_size(w.cores * memory.worker * 1.1)}",
        ),
        _Need(
            "on the driver's machine", on_machine, limits.machine, "its free memory",
            "a machine with more memory" + (" or fewer cores (--master local[1])" if limits.local else ""),
        ),
    ]  # fmt: skip


def driver_heap(made: Plan, local: bool) -> int:
    """Bytes of heap that the driver's JVM needs; in a local master the tasks run in it too."""
    return made.memory.driver_heap + (made.memory.executor_heap if local else 0)


def limits_of(spark: SparkSession) -> Limits:
    """Reads the limits of a running session and of the driver's machine."""
    sc = spark.sparkContext
    conf = dict(sc.getConf().getAll())
    master = str(sc.master)
    local = re.fullmatch(r"local(\[.*\])?", master) is not None
    heap = int(sc._jvm.java.lang.Runtime.getRuntime().maxMemory())  # type: ignore[union-attr]
    result = parse_size(conf.get("spark.driver.maxResultSize", "1g"), 1) or None  # 0 sets no limit
    if local:
        return Limits(True, heap, result, free_memory(), None, None)
    executor = parse_size(conf.get("spark.executor.memory", "1g"), MIB)
    return Limits(False, heap, result, free_memory(), executor, _beside_heap(master, conf, executor))


def _beside_heap(master: str, conf: dict[str, str], heap: int) -> int | None:
    """What a container leaves to Python; None without containers."""
    if "spark.executor.pyspark.memory" in conf:
        return parse_size(conf["spark.executor.pyspark.memory"], MIB)
    if not master.startswith(("yarn", "k8s")):
        return None
    if "spark.executor.memoryOverhead" in conf:
        return parse_size(conf["spark.executor.memoryOverhead"], MIB)
    # Spark's own defaults; Kubernetes gives Python jobs more
    usual = "0.4" if master.startswith("k8s") else "0.1"
    factor = float(conf.get("spark.executor.memoryOverheadFactor", usual))
    return max(384 * MIB, round(factor * heap))


def parse_size(text: str, unit: int) -> int:
    """Bytes of a Spark size such as ``2g``, ``512m`` or a bare number of ``unit`` bytes."""
    found = re.fullmatch(r"(\d+)\s*([bkmgtp]?)(?:ib|b)?", text.strip().lower())
    if not found:
        raise CapacityError(f"{text!r} is no size that Spark understands; write for example 4g or 512m")
    return int(found[1]) * (_UNITS[found[2]] if found[2] else unit)


def conf_size(size: float) -> str:
    """A size for ``--conf``, rounded up: whole GiB from 1 GiB on, else whole MiB."""
    return f"{math.ceil(size / GIB)}g" if size >= GIB else f"{math.ceil(size / MIB)}m"


def gib(size: float) -> str:
    """A size for people."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / MIB:.0f} MiB" if size >= 10 * MIB else f"{size / MIB:.2f} MiB"


def free_memory(read: Callable[[str], str] = lambda path: Path(path).read_text()) -> int | None:
    """Bytes that this machine, or the container that this process lives in, can still give; None when unknown.

    Args:
        read: content of a file of the system, OSError when there is none.
    """
    found = [_machine_free(read), *(_container_free(read, *names) for names in _CONTAINERS)]
    return min((size for size in found if size is not None), default=None)


_CONTAINERS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def _machine_free(read: Callable[[str], str]) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return None
    return int(found[1]) * 1024 if found else None


def _container_free(read: Callable[[str], str], limit: str, usage: str, stat: str, cache: str) -> int | None:
    try:
        # files in the page cache count as used, and go when memory is short
        reclaimable = re.search(rf"^{cache} (\d+)$", read(stat), re.MULTILINE)
        used = int(read(usage)) - (int(reclaimable[1]) if reclaimable else 0)
        return max(0, int(read(limit)) - used)
    except (OSError, ValueError):  # no container, or "max"
        return None
