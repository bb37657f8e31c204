"""Progress without a terminal is log lines; on a terminal it is a bar."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from fm_spark.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_a_step_without_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fm_spark"), progress(3, "epochs") as bar:
        bar.advance(1, note="loss 3.2")
        bar.advance(2)
    assert [record.getMessage() for record in caplog.records] == ["epochs 1/3: loss 3.2", "epochs 3/3"]


def test_an_unknown_total_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fm_spark"), progress(None, "files") as bar:
        bar.advance()
    assert [record.getMessage() for record in caplog.records] == ["files 1"]


def test_a_bar_on_a_terminal_and_lines_for_a_bar_inside_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, logger="fm_spark"), progress(2, "epochs") as bar:
        bar.advance(1, note="loss 3.2")
        bar.advance(1, note="loss 3.1")
    assert "2/2" in terminal.getvalue()
    assert "loss 3.1" in terminal.getvalue()
    assert not caplog.records
