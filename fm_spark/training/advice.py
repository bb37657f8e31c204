"""The Spark settings that a plan recommends, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

from fm_spark.core.planner import MIB, Plan
from fm_spark.training.capacity import GIB, conf_size, driver_heap, gib

# events of one shuffle partition of the events job: about 64 MiB of rows while they are sorted
_EVENTS_A_PARTITION = 500_000
_LEAST_HEAP = 2 * GIB


class Advice(NamedTuple):
    """``--conf name=value`` and why."""

    name: str
    value: str
    reason: str


def recommended(made: Plan, local: bool) -> list[Advice]:
    """Settings for a local master, or for a cluster with the executors of the plan."""
    w, memory, transport = made.workload, made.memory, made.transport
    heap = max(_LEAST_HEAP, 1.3 * driver_heap(made, local) + (memory.cached if local else 0))
    advice = [
        Advice(
            "spark.driver.memory",
            conf_size(heap),
            f"{gib(2 * transport.broadcast)} of parameters on their way out, {gib(transport.aggregated)} of rows "
            "coming back each round" + (", and the tasks run in the same JVM" if local else ""),
        ),
        Advice(
            "spark.driver.maxResultSize",
            conf_size(max(GIB, 1.5 * transport.aggregated)),
            f"the tasks of a round return {gib(transport.aggregated)}; beyond this limit Spark stops the job",
        ),
        Advice(
            "spark.default.parallelism",
            str(w.executors * w.cores),
            f"a round has as many tasks (here {w.tasks}), and every task returns its rows",
        ),
        Advice(
            "spark.sql.shuffle.partitions",
            str(max(w.executors * w.cores, -(-w.events // _EVENTS_A_PARTITION))),
            "about half a million events in a task of the events job",
        ),
    ]
    return advice if local else advice + _executors(made)


def _executors(made: Plan) -> list[Advice]:
    w, memory = made.workload, made.memory
    share = memory.cached / w.executors
    return [
        Advice("spark.executor.instances", str(w.executors), "as planned"),
        Advice("spark.executor.cores", str(w.cores), "as planned; one Python worker a core"),
        Advice(
            "spark.executor.memory",
            conf_size(max(_LEAST_HEAP, 1.3 * memory.executor_heap + share / 0.6)),
            f"parameters and task results, and {gib(share)} of packed events in the 60 % that Spark keeps for such",
        ),
        Advice(
            "spark.executor.memoryOverhead",
            conf_size(1.1 * w.cores * memory.worker + 384 * MIB),
            f"{w.cores} Python workers of {gib(memory.worker)} live beside the heap; leave "
            "spark.executor.pyspark.memory unset, it limits address space, which compiled kernels only reserve",
        ),
    ]
