"""The report of a run for the terminal and for logs: 80 columns are enough, colours only on a terminal."""

from __future__ import annotations

import re
import sys
from typing import IO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fm_spark.report import words
from fm_spark.report.facts import ClusterFacts, RunFacts, SimilarFacts, UserLists

_LOG_WIDTH = 80
_SIDE_BY_SIDE = 130
# rich's SIMPLE_HEAD with plain minus signs, for files and logs of any encoding
_PLAIN = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def print_report(facts: RunFacts, stream: IO[str] | None = None) -> None:
    """Prints the summary; ``stream`` defaults to stdout. Nothing is cut off: long titles and paths wrap."""
    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _LOG_WIDTH)
    with console.capture() as capture:
        for part in _parts(facts, console):
            # lines of text (titles, paths to copy) may pass the edge, tables and notes wrap
            console.print(part, soft_wrap=isinstance(part, Text))
    lines = "\n".join(line.rstrip() for line in capture.get().splitlines())
    stream.write(re.sub(r"\n{3,}", "\n\n", lines) + "\n\n")
    stream.flush()


def _parts(facts: RunFacts, console: Console) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text(f"\nRun {facts.run_id}", style="bold"),
        Text(f"Model {facts.model_version}, published {facts.published_at:%Y-%m-%d %H:%M} UTC"),
        _title("What came in"),
        _pairs(words.data_rows(facts)),
        _quality(facts, console),
        _title("How good it is"),
        *_predictions(facts, console),
        _metrics(facts, console),
        _note(words.metric_note(facts.metrics)),
        _title("How it was trained"),
        _note(words.training_note(facts)),
        _note("Settings: " + ", ".join(f"{name} {value}" for name, value in words.setting_rows(facts)) + "."),
    ]
    if facts.users:
        parts += [_title("What users get"), *(_user(user, console) for user in facts.users)]
    if facts.clusters:
        parts.append(_title(words.clusters_title(facts)))
        note = words.clusters_note(facts)
        parts += [_note(note)] if note else []
        parts += [_cluster(cluster) for cluster in facts.clusters]
    if facts.similar:
        parts += [
            _title("Similar items"),
            *(_similar(item) for item in facts.similar),
            _note(words.similar_note(facts)),
        ]
    parts += [_title("Tables"), _tables(facts)]
    if facts.seconds:
        parts += [_title("Seconds by step"), _seconds(facts, console)]
    return parts


def _title(text: str) -> RenderableType:
    return Text(f"\n{text}", style="bold cyan")


def _note(text: str) -> RenderableType:
    return Padding(Text(text), (0, 0, 0, 2))


def _grid(console: Console, *columns: tuple[str, bool]) -> Table:
    """A table with the headings and whether each column holds numbers."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else _PLAIN, header_style="dim", pad_edge=True)
    for heading, number in columns:
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def _pairs(rows: list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return Padding(table, (0, 0, 0, 2))


def _quality(facts: RunFacts, console: Console) -> RenderableType:
    found = words.quality_rows(facts)
    if not found:
        return _note("Every row was usable.")
    table = _grid(console, ("Rows", True), ("Then", False), ("Found", False))
    for rows, action, what in found:
        table.add_row(rows, Text(action), Text(what))
    return table


def _predictions(facts: RunFacts, console: Console) -> list[RenderableType]:
    headings, rows = words.prediction_table(facts.metrics)
    if not rows:
        return []
    table = _grid(console, *((heading, place > 0) for place, heading in enumerate(headings)))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return [table, _note(words.prediction_note(facts.metrics))]


def _metrics(facts: RunFacts, console: Console) -> RenderableType:
    table = _grid(console, ("Metric", False), ("fm_spark", True), ("popularity", True), ("ratio", True))
    for name, fm, popularity, ratio in words.metric_rows(facts.metrics):
        shown = ["-" if value is None else f"{value:.4f}" for value in (fm, popularity)]
        table.add_row(Text(name), Text(shown[0], style="bold"), shown[1], ratio)
    return table


def _user(user: UserLists, console: Console) -> RenderableType:
    head = Text(f"  User {user.user_id}", style="bold").append(
        f"  {user.events:,} events, {user.liked_events:,} liked", style="dim"
    )
    liked = _grid(console, ("Last liked", False), ("Date", True))
    for item in user.liked:
        liked.add_row(Text(item.title), f"{item.time:%Y-%m-%d}")
    top = _grid(console, ("#", True), ("Recommended", False), ("Score", True))
    for place in user.top:
        top.add_row(str(place.rank), Text(place.title), f"{place.score:.2f}")
    if console.width < _SIDE_BY_SIDE:
        return Group(head, liked, top)
    both = Table.grid(padding=(0, 2))
    both.add_row(liked, top)
    return Group(head, both)


def _cluster(cluster: ClusterFacts) -> RenderableType:
    head = Text(cluster.label, style="bold").append(f"  {words.cluster_size(cluster)}", style="dim")
    lines: list[RenderableType] = [
        Padding(head, (0, 0, 0, 2)),
        Padding(Text("; ".join(cluster.exemplars)), (0, 0, 0, 4)),
    ]
    traits = words.cluster_traits(cluster)
    if traits:
        lines.append(Padding(Text(traits, style="dim"), (0, 0, 0, 4)))
    return Group(*lines)


def _similar(item: SimilarFacts) -> RenderableType:
    near = "; ".join(f"{each.title} {each.score:.2f}" for each in item.neighbours)
    return Group(Padding(Text(item.title, style="bold"), (0, 0, 0, 2)), Padding(Text(near), (0, 0, 0, 4)))


def _tables(facts: RunFacts) -> RenderableType:
    lines = [Text(f"  {'Rows':>11}  {'Version':>7}  Path", style="dim")]
    lines += [Text(f"  {each.rows:>11,}  {each.version:>7}  {each.path}") for each in facts.tables]
    return Text("\n").join(lines)


def _seconds(facts: RunFacts, console: Console) -> RenderableType:
    table = _grid(console, ("Step", False), ("Seconds", True))
    for step, seconds in facts.seconds.items():
        style = "bold" if step == "all steps" else ""
        table.add_row(Text(step, style=style), Text(f"{seconds:.1f}", style=style))
    return table
