"""The plan for the terminal and for logs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fm_spark.core.event_cost import EventWorkload
from fm_spark.core.planner import Plan, Workload
from fm_spark.core.ranker_cost import RankerWorkload
from fm_spark.training.advice import Advice
from fm_spark.training.capacity import gib
from fm_spark.training.planning import Counts

_LOG_WIDTH = 80
Row = tuple[str, str, str]


def print_plan(
    made: Plan, counts: Counts, advice: Sequence[Advice], problem: str | None, stream: IO[str] | None = None
) -> None:
    """Prints the plan to ``stream`` (default stdout).

    Args:
        problem: what does not fit in this session; "" when everything does, ``None`` when the plan is for another.
    """
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)
    with console.capture() as capture:
        for title, rows in (
            (f"Data, from {counts.origin}", data_rows(made, counts)),
            ("Settings, auto resolved", setting_rows(made)),
            ("Size and bytes", byte_rows(made)),
            ("Memory at the peak of training", memory_rows(made)),
            ("Seconds", second_rows(made)),
        ):
            console.print(Text(f"\n{title}", style="bold cyan"))
            console.print(_table(rows))
        console.print(Text("\nRecommended settings", style="bold cyan"))
        for each in advice:
            # one line to copy, however long; the reason wraps
            console.print(Text(f"  --conf {each.name}={each.value}", style="bold"), soft_wrap=True)
            console.print(Padding(Text(each.reason, style="dim"), (0, 0, 0, 6)))
        if problem is not None:
            console.print(Text("\nDoes it fit here?", style="bold cyan"))
            console.print(Padding(Text(f"No: {problem}." if problem else "Yes, in this session."), (0, 0, 0, 2)))
    stream.write(re.sub(r"[ \t]+$", "", capture.get(), flags=re.MULTILINE) + "\n")
    stream.flush()


def _table(rows: Sequence[Row]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return Padding(table, (0, 0, 0, 2))


def data_rows(made: Plan, counts: Counts) -> list[Row]:
    """Name, value and remark of the counts."""
    w, size = made.workload, counts.size
    return [
        ("users", f"{w.users:,}", ""),
        ("events", f"{w.events:,}", f"{size.events:,} of them in the training part"),
        ("positives", f"{w.positives:,}", f"{size.positives:,} of them in the training part"),
        ("items", f"{w.items:,}", ""),
        ("side features", f"{w.side_features:,}", "genres and other values of the items" if w.side_features else ""),
        *(
            [("context features", f"{w.context_features:,}", "times and columns of users")]
            if w.context_features
            else []
        ),
    ]


def setting_rows(made: Plan) -> list[Row]:
    """Name, value and remark of what training will use."""
    w = made.workload
    return [
        ("train.k", f"{w.k}", ""),
        *_own_rows(w),
        ("train.blocks", f"{w.blocks}", ""),
        ("train.rounds", f"{w.rounds}", "an epoch"),
        ("tasks of a round", f"{w.tasks}", f"on {w.executors} x {w.cores} cores"),
        ("machines fitted", f"{w.fits}", "candidates, evaluation, publish"),
    ]


def _own_rows(w: Workload) -> list[Row]:
    if isinstance(w, RankerWorkload):
        return [
            ("train.decays", ", ".join(f"{d:g}" for d in w.decays), "validation may choose others"),
            ("train.batch_size", f"{w.batch_size:,}", "validation may choose others"),
            ("train.negatives", f"{w.negatives}", ""),
        ]
    if isinstance(w, EventWorkload):
        fields = [name for name in ("user", "bag") if getattr(w, name)]
        return [("train.loss", w.loss, f"item, {', '.join(fields)}" if fields else "item")]
    return []


def byte_rows(made: Plan) -> list[Row]:
    """Name, value and remark of the machine's size and of what travels."""
    t, w = made.transport, made.workload
    return [
        ("features", f"{made.n_features:,}", ""),
        ("parameters", f"{made.n_parameters:,}", ""),
        ("broadcast a round", gib(t.broadcast), _broadcast(w)),
        ("returned by a task", gib(t.task), f"{made.rows:,} touched rows"),
        ("aggregated a round", gib(t.aggregated), f"by {w.tasks} tasks"),
        ("packed events", gib(made.memory.cached), "cached, over all executors"),
    ]


def _broadcast(w: Workload) -> str:
    return "parameters and their AdaGrad state" if isinstance(w, RankerWorkload) else "parameters"


def memory_rows(made: Plan) -> list[Row]:
    """Name, value and remark of the memory of each kind of process."""
    m = made.memory
    return [
        ("driver heap", gib(m.driver_heap), "the JVM that asks for the rounds"),
        ("driver Python", gib(m.driver_python), "parameters, best ones so far, sums of a round"),
        ("executor heap", gib(m.executor_heap), "each; in a local master part of the driver's JVM"),
        ("Python worker", gib(m.worker), "each core: parameters, scratch, undo log, sums"),
    ]


def second_rows(made: Plan) -> list[Row]:
    """Name, value and remark of the time of an epoch."""
    s = made.seconds
    return [
        ("broadcast", f"{s.broadcast:.1f}", ""),
        ("compute", f"{s.compute:.1f}", f"on {made.workload.executors * made.workload.cores} cores"),
        ("aggregate", f"{s.aggregate:.1f}", "Spark's rounds and what travels back"),
        ("step", f"{s.step:.1f}", "on the driver"),
        ("an epoch", f"{s.epoch:.1f}", f"{made.workload.rounds} rounds"),
    ]
