"""Which publication counts, what gates ask, and what history says has changed."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fm_spark.config import load_config
from fm_spark.report.history import RunLine, changes, flat, print_history
from fm_spark.tables.gates import failures, metric_gates
from fm_spark.tables.published import Gate, Publication, newest

START = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = {"fm.ndcg_at_10": 0.2, "popularity.ndcg_at_10": 0.1}
OFF = load_config().publish


def publication(number: int, run_id: str, ndcg: float = 0.2) -> Publication:
    at = START + timedelta(days=number)
    return Publication(number, run_id, f"fm-{run_id}", at, {}, {"fm.ndcg_at_10": ndcg})


def test_the_highest_number_is_the_latest_whatever_the_order_of_the_rows() -> None:
    rows = [publication(2, "b"), publication(3, "a"), publication(1, "a")]
    found = newest(rows)
    assert found is not None
    assert (found.publication, found.run_id) == (3, "a")
    assert newest(rows, "b") == rows[0]
    assert newest(rows, at=START + timedelta(days=2)) == rows[0]
    assert newest(rows, "a", at=START + timedelta(days=2)) == rows[2]
    assert newest(rows, "z") is newest([]) is newest(rows, at=START) is None


def test_gates_are_off_unless_asked_for() -> None:
    assert metric_gates(OFF, METRICS, publication(1, "a", 9.0)) == []


@pytest.mark.parametrize(
    ("change", "limit", "passed"),
    [
        ({"min_metric": 0.2}, 0.2, True),
        ({"min_metric": 0.21}, 0.21, False),
        ({"min_over_popularity": 1.5}, 0.15, True),
        ({"min_over_popularity": 2.5}, 0.25, False),
        ({"max_drop": 0.25}, 0.3, False),
        ({"max_drop": 0.6}, 0.16, True),
    ],
)
def test_each_gate_compares_with_its_limit(change: dict[str, float], limit: float, passed: bool) -> None:
    (gate,) = metric_gates(replace(OFF, **change), METRICS, publication(1, "a", 0.4))
    assert (gate.gate, gate.value, gate.passed) == (next(iter(change)), 0.2, passed)
    assert gate.limit == pytest.approx(limit)
    assert bool(failures([gate])) is not passed


def test_the_first_publication_cannot_drop_and_a_missing_metric_is_zero() -> None:
    assert metric_gates(replace(OFF, max_drop=0.1), METRICS, None) == []
    (gate,) = metric_gates(replace(OFF, min_metric=0.1), {}, None)
    assert failures([gate]) == "min_metric: 0 is below 0.1"


def line(number: int | None, run_id: str, **others: object) -> RunLine:
    return RunLine(run_id, number, START + timedelta(days=number or 9), **others)  # type: ignore[arg-type]


def test_history_names_what_changed() -> None:
    config = {"run": {"id": "a"}, "train": {"k": 64, "decays": [0.8]}}
    one = line(1, "a", settings=flat(config), rows={"events": 1000, "items": 5})
    config = {"run": {"id": "b"}, "train": {"k": 32, "decays": [0.8], "new": "x"}}
    gate = Gate("max_drop", 0.1, 0.2, False)
    two = line(2, "b", settings=flat(config), rows={"events": 2000, "items": 5}, gates=[gate])
    assert changes(one, None) == ["first run"]
    assert changes(two, one) == [
        "gate max_drop: 0.1 below 0.2", "train.k 64 -> 32", 'train.new unset -> "x"', "events 1,000 -> 2,000 rows",
    ]  # fmt: skip
    assert changes(one, one) == ["nothing"]
    assert changes(replace(one, rolled_back_from="b"), two)[0] == "rolled back from b"


def test_history_is_a_table_with_a_title_also_of_nothing() -> None:
    stream = io.StringIO()
    print_history([], "/warehouse", stream)
    assert "Runs in /warehouse" in stream.getvalue()
    assert "Nothing is published yet" in stream.getvalue()

    stream = io.StringIO()
    lines = [line(1, "a", metrics=METRICS), line(2, "b", metrics={**METRICS, "fm.ndcg_at_10": 0.25}), line(None, "c")]
    print_history(lines, "/warehouse", stream)
    text = stream.getvalue()
    assert all(words in text for words in ("0.2500", "(+0.0500)", "b (latest)", "c (not", "2.50"))
    assert "Nothing is published" not in text
