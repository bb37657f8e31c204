"""What job_main makes of arguments and exceptions, without a session."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fm_spark import cli
from fm_spark.config import Config
from fm_spark.errors import InputError


class FakeSession:
    stopped = False

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSession]:
    fake = FakeSession()
    monkeypatch.setattr(cli, "open_session", lambda job, config: fake)
    monkeypatch.setattr(cli, "_own_tables", lambda *_: contextlib.nullcontext())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield fake
    root.handlers[:], root.level = handlers, level


def exit_code(run: Callable[[Any, Config], object], *argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.job_main("events", run, argv)
    return int(caught.value.code or 0)


def test_a_job_gets_session_and_configuration_and_the_session_is_stopped(session: FakeSession) -> None:
    seen: list[tuple[object, Config]] = []
    assert exit_code(lambda spark, config: seen.append((spark, config)), "--set", "train.k=8", "--run-id", "007") == 0
    ((spark, config),) = seen
    assert spark is session
    assert (config.train.k, config.run.id) == (8, "007")
    assert session.stopped


def failing(error: BaseException) -> Callable[[Any, Config], object]:
    def run(spark: Any, config: Config) -> object:
        raise error

    return run


def test_the_users_mistake_is_one_line_on_stderr(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(InputError("no such folder"))) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.endswith("ERROR   no such folder")
    assert session.stopped


def test_a_failure_is_a_message_and_the_way_to_more(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(ZeroDivisionError("division by zero"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("ZeroDivisionError: division by zero")
    assert "--verbose" in lines[1]
    assert len(lines) == 2


def test_verbose_shows_the_trace(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(InputError("no such folder")), "--verbose") == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err
    assert session.stopped


def test_an_unknown_key_is_found_before_the_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "open_session", lambda job, config: pytest.fail("a session was opened"))
    assert exit_code(lambda spark, config: None, "--set", "train.epoch=1") == 2
    assert "train.epochs" in capsys.readouterr().err
