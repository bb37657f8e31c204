"""The runs of a root, how good they are, and what changed from each to the next; for ``./spark-submit.sh history``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fm_spark.report.pinned import Pinned
from fm_spark.tables.contracts import EVALUATION, EVENTS, FM_MODEL, ITEMS, TOP_N
from fm_spark.tables.publications import publications
from fm_spark.tables.published import Gate
from fm_spark.tables.runs import PUBLISH, model_records
from fm_spark.tables.store import TableStore

SHOWN_RUNS = 20
_COUNTED = (EVENTS, ITEMS, TOP_N)
_METRICS = ("ndcg_at_10", "recall_at_20")
_LOG_WIDTH = 100
# which run it is and where it lies are no settings of it
_NO_SETTING = ("run.",)


@dataclass(frozen=True)
class RunLine:
    """One run, or one rollback to it.

    Attributes:
        publication: its number; None when the run was trained and is not published.
        at: when it was published, or trained, UTC.
        settings: the effective configuration, ``section.key`` -> value; empty when no model tells.
        rows: of the larger tables, where the log says so.
    """

    run_id: str
    publication: int | None
    at: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)
    gates: Sequence[Gate] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    rolled_back_from: str | None = None


def collect_history(store: TableStore) -> list[RunLine]:
    """Every publication and every trained run that is not published, oldest first."""
    models, metrics = _models(store), _metrics(store)
    lines = []
    for one in publications(store):
        settings = models.get(one.run_id, (None, {}))[1]
        line = RunLine(one.run_id, one.publication, one.published_at, one.metrics, one.gates, settings)
        rows = Pinned(store, one).known_rows(_COUNTED)
        lines.append(replace(line, rows=rows, rolled_back_from=one.rolled_back_from))
    published = {line.run_id for line in lines}
    for run_id, (at, settings) in models.items():
        if run_id not in published:
            lines.append(RunLine(run_id, None, at, metrics.get(run_id, {}), settings=settings))
    return sorted(lines, key=lambda line: line.at)


def _models(store: TableStore) -> dict[str, tuple[datetime, dict[str, Any]]]:
    if not store.exists(FM_MODEL):
        return {}
    records = model_records(store, purpose=PUBLISH)
    return {one.run_id: (one.created_at, flat(json.loads(one.config))) for one in records}


def _metrics(store: TableStore) -> dict[str, dict[str, float]]:
    if not store.exists(EVALUATION):
        return {}
    metrics: dict[str, dict[str, float]] = {}
    for row in store.rows(EVALUATION, columns=("run_id", "ranker", "metric", "value")).to_pylist():
        metrics.setdefault(row["run_id"], {})[f"{row['ranker']}.{row['metric']}"] = row["value"]
    return metrics


def flat(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration as ``section.key`` -> value."""
    return {f"{section}.{key}": value for section, keys in config.items() for key, value in keys.items()}


def changes(line: RunLine, before: RunLine | None) -> list[str]:
    """What differs from the run before: settings, rows of tables, gates; one short text each."""
    texts = [f"rolled back from {line.rolled_back_from}"] if line.rolled_back_from else []
    texts += [f"gate {gate.gate}: {gate.value:.4g} below {gate.limit:.4g}" for gate in line.gates if not gate.passed]
    if before is None:
        return texts or ["first run"]
    if line.settings and before.settings:
        for key in sorted({*line.settings, *before.settings}):
            old, new = before.settings.get(key), line.settings.get(key)
            if old != new and not key.startswith(_NO_SETTING):
                texts.append(f"{key} {_shown(old)} -> {_shown(new)}")
    for table, rows in line.rows.items():
        if table in before.rows and before.rows[table] != rows:
            texts.append(f"{table} {before.rows[table]:,} -> {rows:,} rows")
    return texts or ["nothing"]


def print_history(lines: Sequence[RunLine], root: str, stream: IO[str] | None = None) -> None:
    """Prints a table of the newest runs to ``stream`` (default stdout)."""
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)
    table = Table(title=Text(f"Runs in {root}"), box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2)
    for heading, right in (("#", True), ("Run", False), ("UTC", False), *((name, True) for name in _HEADINGS)):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    table.add_column("Changed", overflow="fold")
    for row in list(_rows(lines))[-SHOWN_RUNS:]:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as capture:
        console.print(table)
        if not any(line.publication for line in lines):
            console.print(Text("Nothing is published yet: ./spark-submit.sh publish, or pipeline, does it."))
        if len(lines) > SHOWN_RUNS:
            console.print(
                Text(f"{len(lines) - SHOWN_RUNS} earlier ones are not shown; the table publications has all.")
            )
    text = "\n".join(line.rstrip() for line in capture.get().splitlines())
    stream.write(re.sub(r"\n{3,}", "\n\n", text) + "\n")
    stream.flush()


_HEADINGS = ("NDCG@10", "Recall@20", "x popularity")


def _rows(lines: Sequence[RunLine]) -> Iterator[list[str]]:
    latest = max((line.publication for line in lines if line.publication), default=None)
    before: RunLine | None = None
    for line in lines:
        number = "-" if line.publication is None else str(line.publication)
        state = " (latest)" if line.publication == latest and latest else ""
        state = " (not published)" if line.publication is None else state
        values = [_metric(line, before, name) for name in _METRICS]
        changed = "; ".join(changes(line, before))
        yield [number, line.run_id + state, f"{line.at:%Y-%m-%d %H:%M}", *values, _ratio(line), changed]
        before = line


def _metric(line: RunLine, before: RunLine | None, name: str) -> str:
    value = line.metrics.get(f"fm.{name}")
    old = before.metrics.get(f"fm.{name}") if before else None
    if value is None:
        return "-"
    return f"{value:.4f}" if old is None else f"{value:.4f} ({value - old:+.4f})"


def _ratio(line: RunLine) -> str:
    value, popularity = (line.metrics.get(f"{ranker}.ndcg_at_10") for ranker in ("fm", "popularity"))
    return f"{value / popularity:.2f}" if value is not None and popularity else "-"


def _shown(value: object) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)
