"""The report of a run: nothing is lost at 80 columns, nothing of the data is taken for markup."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from facts_example import LONG, RUN_ID, TITLES, example_facts
from pyspark.sql import Row

from fm_spark.report import words
from fm_spark.report.facts import ItemFacts, MetricFacts, RunFacts
from fm_spark.report.html import html_report
from fm_spark.report.lists import _choose_users
from fm_spark.report.plots import draw_plots, project
from fm_spark.report.similar import different
from fm_spark.report.text import print_report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(facts: RunFacts, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    print_report(facts, stream)
    return stream.getvalue()


def flat(text: str) -> str:
    """The text without line breaks, so that wrapped titles can be looked for."""
    return re.sub(r"\s+", " ", text)


def test_a_log_gets_plain_text_of_80_columns_with_nothing_cut_off() -> None:
    text = printed(example_facts())
    lines = text.splitlines()
    paths = [line for line in lines if "/data/warehouse" in line]
    assert max(len(line) for line in lines if line not in paths) <= 80
    assert "\x1b" not in text
    assert "…" not in text
    assert not re.search(r"[\u2500-\u257f]", text)  # box drawing
    assert paths == ["        6,100        3  /data/warehouse/" + "deep/" * 15 + "top_n"]
    assert not [line for line in lines if line != line.rstrip()]
    for title in TITLES[:4]:
        assert title in flat(text)
    # the long title is broken between words, in the list of films, the top 10 and the clusters
    for word in LONG.split():
        assert text.count(word) >= 3


def test_the_summary_says_everything() -> None:
    text = flat(printed(example_facts()))
    for expected in (
        RUN_ID, "Users 610", "9,724 of 9,742", "100,836 (2018-09-24 to 2018-09-24)", "48,580 (48%)",
        "1.70% of users x items",
        "7 dropped rows that repeat another one", "NDCG@10 0.1500 0.1000 1.50x", "Hit rate@10 0.5000 - -",
        "new_one - 0.0000 -", "28 users have nothing held out", "3 epochs for the measured model",
        "4 epochs for the published model", "Validation: NDCG@10 0.1670. Settings", "k 64, learning_rate 0.1.",
        "User 42 1,234 events, 56 liked", "[REC] (2007) 2018-09-24", "1 [REC] (2007) 8.50",
        "(3 of 4, those of well-known items)", "Horror & [0] $x$ cluster 0, 30 items, cohesion 0.71",
        "Horror x3.2; 1980s x1.5; <i>zombies</i> x9.0", "from run before & after: 21 kept, 3 new, 2 ended",
        "Stability 0.83",
        "Similar items <script>alert('x')</script> & Co (1999)", "[REC] (2007) 0.87; ",
        "80% of the neighbours have a genre in common with the item",
        "(neighbours by co-occurrence 62%, random pairs 35%)",
        "events 12.3", "all steps 40.1",
    ):  # fmt: skip
        assert expected in text
    assert "never shown" not in text


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in printed(example_facts(), Terminal())


def test_a_run_without_users_clusters_or_timings_has_no_such_sections() -> None:
    text = printed(replace(example_facts(), users=[], clusters=[], similar=[], seconds={}))
    for heading in ("What users get", "Clusters of similar items", "Similar items", "Seconds by step"):
        assert heading not in text
    html = html_report(replace(example_facts(), users=[], clusters=[], similar=[], seconds={}), {})
    assert "What users get" not in html
    assert "Similar items" not in html


class Tags(HTMLParser):
    """Checks that every tag is closed and collects the shown text and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.shown: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_the_page_is_whole_alone_and_takes_no_data_for_markup() -> None:
    facts = example_facts()
    page = Tags()
    page.feed(html_report(facts, draw_plots(facts)))
    assert page.open == []
    assert page.seen.isdisjoint({"script", "link", "iframe", "i"})
    assert all(load.startswith(("#", "data:")) for load in page.loads)
    text = "".join(page.shown)
    for title in [*TITLES, "<i>zombies</i>", facts.tables[0].path]:
        assert title in text


def test_plots_are_svg_that_follows_the_colours_of_the_page() -> None:
    plots = draw_plots(example_facts())
    assert set(plots) == {"metrics", "training", "popularity", "clusters"}
    for svg in plots.values():
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert "viewBox" in root.attrib
        assert "width" not in root.attrib
        assert "currentColor" in svg
        assert "#010203" not in svg


def test_the_same_facts_give_the_same_plots() -> None:
    assert draw_plots(example_facts()) == draw_plots(example_facts())


def test_a_plot_without_data_is_left_out() -> None:
    facts = example_facts()
    nothing = ItemFacts(
        np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    )
    empty = replace(
        facts,
        items=nothing,
        metrics=MetricFacts({}, "random", 0, 0, 0),
        training=replace(facts.training, curves=[]),
    )
    assert draw_plots(empty) == {}
    assert "<figure>" not in html_report(empty, {})


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_map_keeps_the_distances_along_its_two_main_directions(k: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(30, k)).astype(np.float32)
    points = project(ItemFacts(np.zeros(0, np.int64), np.zeros(0, np.int64), vectors, np.zeros(30, np.int64)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, singular, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = np.append(singular, 0.0)[:2]
    np.testing.assert_allclose(np.linalg.norm(points, axis=0), expected, atol=1e-5)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] >= 0).all()


def test_shares_and_ratios_of_nothing() -> None:
    assert words.share(0, 0) == "-"
    assert replace(example_facts().data, users=0).density == 0.0


def test_items_of_different_genres_are_shown_and_the_next_ones_where_there_are_too_few() -> None:
    items = [("a", ["Drama", "War"]), ("b", ["War"]), ("c", ["Comedy"]), ("d", []), ("e", ["Horror"])]
    assert different(items, 3) == ["a", "c", "e"]
    assert different(items, 2) == ["a", "c"]
    assert different(items, 5) == ["a", "c", "e", "b", "d"]
    assert different([], 3) == []


@pytest.mark.parametrize(
    ("lengths", "n_users", "expected"),
    [
        ({1: 10, 2: 10, 9: 10}, 3, [1, 2, 9]),
        ({1: 97, 2: 1, 3: 1, 9: 1}, 3, [1, 2, 3]),  # all three parts fall on the shortest: its neighbours stand in
        ({1: 1, 5: 98, 9: 1}, 1, [5]),
        ({4: 7}, 3, [4]),
        ({4: 7}, 0, []),
        ({1: 0, 2: 3}, 1, [2]),  # nobody with one event liked it
        ({}, 3, []),
    ],
)
def test_users_are_taken_from_the_middles_of_equal_parts(
    lengths: dict[int, int], n_users: int, expected: list[int]
) -> None:
    rows = [Row(n=n, with_liked=users) for n, users in lengths.items()]
    assert [row["n"] for row in _choose_users(rows, n_users)] == expected
