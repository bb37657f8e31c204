"""The report of a run as one HTML file that needs nothing else: no scripts, no fonts, no pictures from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fm_spark.report import words
from fm_spark.report.facts import ClusterFacts, RunFacts, SimilarFacts, UserLists

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6775; --line: #d9dee5; --page: #fbfcfd; --card: #ffffff;
  --accent: #2f7ed8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --soft: #9aa6b5; --line: #333c48; --page: #14181e;
  --card: #1b2129; --accent: #6aa9ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; } h3 span { display: block; font-weight: 400; font-size: .9rem; }
p { margin: .5rem 0; max-width: 60rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.25rem .25rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: center; } .pair figure { flex: 1 1 26rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem 1.1rem; }
.card table { width: 100%; font-size: .9rem; } .card td, .card th { padding-right: .6rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr)); gap: 1rem; }
.figures b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; color: var(--ink); }
"""


def html_report(facts: RunFacts, plots: dict[str, str]) -> str:
    """The whole page; every text from the data is escaped.

    Args:
        plots: SVG by name, see :func:`fm_spark.report.plots.draw_plots`.
    """
    body = "\n".join(
        [
            f"<h1>Run {escape(facts.run_id)}</h1>",
            _note(f"Model {facts.model_version}, published {facts.published_at:%Y-%m-%d %H:%M} UTC"),
            _headline(facts),
            _good(facts, plots),
            _came_in(facts),
            _trained(facts, plots),
            _lists(facts, plots),
            _clusters(facts, plots),
            _similar(facts),
            _tables(facts),
            _seconds(facts),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fm_spark run {escape(facts.run_id)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _headline(facts: RunFacts) -> str:
    ndcg = facts.metrics.values.get("ndcg_at_10", {})
    figures = [
        (f"{facts.data.users:,}", "users"),
        (f"{facts.data.items:,}", "items"),
        (f"{facts.data.events:,}", "events"),
    ]
    figures += [(f"{ndcg[ranker]:.3f}", f"NDCG@10, {name}") for ranker, name in _RANKERS if ranker in ndcg]
    cells = "".join(
        f'<div><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>' for value, name in figures
    )
    return f'<div class="figures card">{cells}</div>'


_RANKERS = (("fm", "fm_spark"), ("popularity", "popularity"))


def _good(facts: RunFacts, plots: dict[str, str]) -> str:
    rows = [
        [name, *("-" if value is None else f"{value:.4f}" for value in (fm, popularity)), ratio]
        for name, fm, popularity, ratio in words.metric_rows(facts.metrics)
    ]
    table = _table(["Metric", "fm_spark", "popularity", "ratio"], rows, numbers={1, 2, 3})
    pair = f'<div class="pair">{_plot(plots, "metrics")}{table}</div>'
    headings, predicted = words.prediction_table(facts.metrics)
    numbers = set(range(1, len(headings)))
    errors = [_table(headings, predicted, numbers=numbers), _note(words.prediction_note(facts.metrics))]
    notes = [_note(words.metric_note(facts.metrics))]
    return _section("How good it is", *(errors if predicted else []), pair, *notes)


def _came_in(facts: RunFacts) -> str:
    found = words.quality_rows(facts)
    quality = _table(["Rows", "Then", "Found"], found, numbers={0}) if found else _note("Every row was usable.")
    return _section("What came in", _table([], words.data_rows(facts)), quality)


def _trained(facts: RunFacts, plots: dict[str, str]) -> str:
    settings = _table(["Setting", "Value"], words.setting_rows(facts))
    return _section("How it was trained", _note(words.training_note(facts)), _plot(plots, "training"), settings)


def _lists(facts: RunFacts, plots: dict[str, str]) -> str:
    if not facts.users:
        return ""
    cards = "".join(_user(user) for user in facts.users)
    return _section("What users get", f'<div class="cards">{cards}</div>', _plot(plots, "popularity"))


def _user(user: UserLists) -> str:
    head = (
        f'<h3>User {escape(user.user_id)} <span class="soft">{user.events:,} events, '
        f"{user.liked_events:,} liked</span></h3>"
    )
    liked = _table(["Last liked", "Date"], [[item.title, f"{item.time:%Y-%m-%d}"] for item in user.liked], numbers={1})
    top = _table(
        ["#", "Recommended", "Score"],
        [[str(place.rank), place.title, f"{place.score:.2f}"] for place in user.top],
        numbers={0, 2},
    )
    return f'<div class="card">{head}{liked}{top}</div>'


def _clusters(facts: RunFacts, plots: dict[str, str]) -> str:
    if not facts.clusters:
        return ""
    cards = "".join(_cluster(cluster) for cluster in facts.clusters)
    note = words.clusters_note(facts)
    parts = [_note(note) if note else "", _plot(plots, "clusters"), f'<div class="cards">{cards}</div>']
    return _section(words.clusters_title(facts), *parts)


def _cluster(cluster: ClusterFacts) -> str:
    exemplars = "".join(f"<div>{escape(title)}</div>" for title in cluster.exemplars)
    return (
        f'<div class="card"><h3>{escape(cluster.label)} '
        f'<span class="soft">{escape(words.cluster_size(cluster))}</span></h3>'
        f'{exemplars}<p class="soft">{escape(words.cluster_traits(cluster))}</p></div>'
    )


def _similar(facts: RunFacts) -> str:
    if not facts.similar:
        return ""
    cards = "".join(_similar_item(item) for item in facts.similar)
    note = words.similar_note(facts)
    return _section("Similar items", f'<div class="cards">{cards}</div>', _note(note) if note else "")


def _similar_item(item: SimilarFacts) -> str:
    rows = [[each.title, f"{each.score:.2f}"] for each in item.neighbours]
    return f'<div class="card"><h3>{escape(item.title)}</h3>{_table(["Nearest", "Score"], rows, numbers={1})}</div>'


def _tables(facts: RunFacts) -> str:
    rows = [[each.name, f"{each.rows:,}", str(each.version), each.path] for each in facts.tables]
    return _section("Tables", _table(["Table", "Rows", "Version", "Path"], rows, numbers={1, 2}, code={3}))


def _seconds(facts: RunFacts) -> str:
    if not facts.seconds:
        return ""
    rows = [[step, f"{seconds:.1f}"] for step, seconds in facts.seconds.items()]
    return _section("Seconds by step", _table(["Step", "Seconds"], rows, numbers={1}))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "</section>"


def _note(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _plot(plots: dict[str, str], name: str) -> str:
    return f"<figure>{plots[name]}</figure>" if name in plots else ""


def _table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: set[int] | None = None,
    code: set[int] | None = None,
) -> str:
    """A table of escaped texts; ``numbers`` and ``code`` name the columns set as such."""
    numbers, code = numbers or set(), code or set()

    def cell(tag: str, place: int, text: str) -> str:
        inner = f"<code>{escape(text)}</code>" if place in code and tag == "td" else escape(text)
        return f'<{tag} class="number">{inner}</{tag}>' if place in numbers else f"<{tag}>{inner}</{tag}>"

    def line(tag: str, texts: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, place, text) for place, text in enumerate(texts)) + "</tr>"

    head = f"<thead>{line('th', headings)}</thead>" if headings else ""
    return f'<div class="scroll"><table>{head}<tbody>{"".join(line("td", row) for row in rows)}</tbody></table></div>'
