"""What maintenance and forgetting did, or would do, for the terminal and for logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fm_spark.tables.forgetting import Forgotten, Removed
from fm_spark.tables.maintenance import TablePlan

_LOG_WIDTH = 120
_NOTHING_CHANGED = "Nothing was changed (--dry-run)."


def print_maintenance(plans: Sequence[TablePlan], dry_run: bool, stream: IO[str] | None = None) -> None:
    """Prints a line a table and the sums to ``stream`` (default stdout)."""
    rows = [_maintenance_row(plan) for plan in plans]
    gone = sum(len(plan.stays.gone) for plan in plans)
    size = sum(plan.stays.bytes for plan in plans)
    runs = sorted({run for plan in plans for run in plan.runs})
    verb = "would be removed" if dry_run else "removed"
    last = f"{gone:,} files, {_size(size)} {verb}; rows of {len(runs)} old runs{': ' if runs else ''}{', '.join(runs)}"
    header = ("table", "version", "files", "size", "files go", "bytes go", "runs go", "files joined", "still readable")
    _print("Maintenance", header, rows, [last, *([_NOTHING_CHANGED] if dry_run else [])], stream)


def print_forgotten(told: Forgotten, dry_run: bool, stream: IO[str] | None = None) -> None:
    """Prints a line a table, what still holds the persons, and how to be rid of it, to ``stream`` (default stdout)."""
    rows = [_forgotten_row(one) for one in told.removed]
    lines = []
    if told.reports:
        lines.append(
            f"Reports that show one of them {'(would be) ' if dry_run else ''}deleted: {', '.join(told.reports)}"
        )
    if dry_run:
        lines.append(_NOTHING_CHANGED)
    else:
        if told.publication is not None:
            lines.append(
                f"Run {told.publication.run_id} is published again, as publication {told.publication.publication}."
            )
        for name in told.stale:
            lines.append(
                f"{name} of that publication stays at version {told.publication and told.publication.tables[name]}, "
                "which holds them: a newer run has replaced its rows; publish that run."
            )
        lines.append(
            "Files of older versions, the change feed's too, hold them until maintenance removes these. At once, with "
            "all earlier publications: ./spark-submit.sh maintain --set maintain.keep_publications=1 "
            "--set maintain.keep_hours=0"
        )
    lines.append("The input is yours: remove them there too, or the next events job brings them back.")
    header = ("table", "rows", "version", "published versions that hold them")
    _print("Forget", header, rows, lines, stream)


def _maintenance_row(plan: TablePlan) -> tuple[str, ...]:
    stays = plan.stays
    readable = ", ".join([*map(str, stays.versions), f"{stays.complete_from} to {plan.version}"])
    return (
        plan.contract.name,
        str(plan.version),
        f"{plan.files:,}",
        _size(plan.bytes),
        f"{len(stays.gone):,}",
        _size(stays.bytes),
        str(len(plan.runs)),
        str(plan.small_files),
        readable,
    )


def _forgotten_row(one: Removed) -> tuple[str, ...]:
    return one.contract.name, f"{one.rows:,}", str(one.version), ", ".join(map(str, one.holding)) or "none"


def _print(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str], stream: IO[str] | None
) -> None:
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)
    table = Table.grid(padding=(0, 2))
    for place in range(len(header)):
        table.add_column(justify="right" if 0 < place < len(header) - 1 else "left", overflow="fold")
    table.add_row(*(Text(name, style="dim") for name in header))
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(Text(f"\n{title}", style="bold cyan"))
    console.print(Padding(table, (0, 0, 0, 2)))
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 100_000 else f"{n:,} B"
