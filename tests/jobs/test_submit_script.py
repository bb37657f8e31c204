"""./spark-submit.sh itself: where it runs from, and what it says when something is missing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def test_help_lists_the_jobs(submit: Any) -> None:
    ended = submit("--help")
    assert ended.code == 0
    assert ended.err == ""
    for job in ("events", "train", "evaluate", "recommend", "cluster", "publish", "pipeline"):
        assert f"\n  {job} " in ended.out


def test_dry_run_prints_one_command_and_starts_nothing(submit: Any, tmp_path: Path) -> None:
    root = tmp_path / "tables"
    ended = submit("events", "--set", f"tables.root={root}", "--dry-run", env={"JAVA_HOME": "/nowhere"})
    assert ended.code == 0
    assert ended.err == ""
    words = shlex.split(one_line(ended.out))
    assert any(word.endswith("/bin/spark-submit") and Path(word).is_file() for word in words)
    assert f"tables.root={root}" in words
    assert not root.exists()


def test_it_works_from_another_folder_and_through_a_link(submit: Any, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "submit"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(PROJECT / "spark-submit.sh", link.parent))
    (tmp_path / "my.toml").write_text("[train]\nk = 2\n", encoding="utf-8")
    ended = submit("train", "--config", "my.toml", "--dry-run", cwd=tmp_path, script=link)
    assert ended.code == 0
    assert str(tmp_path / "my.toml") in shlex.split(ended.out)


def test_a_copy_that_is_not_set_up_says_how(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "spark-submit.sh", tmp_path)
    # `make test-pair` names another Python
    own = {name: value for name, value in os.environ.items() if name != "FM_SPARK_PYTHON"}
    ended = subprocess.run(
        [tmp_path / "spark-submit.sh", "events"], env=own, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "make -C" in one_line(ended.stderr)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recomend"], "did you mean recommend?"),
        (["events", "--set", "recomend.n=3"], "did you mean recommend?"),
        (["events", "--set", "recommend.n=0"], "recommend.n = 0"),
        (["events", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_and_2(submit: Any, words: list[str], message: str) -> None:
    ended = submit(*words)
    assert (ended.code, ended.out) == (2, "")
    assert message in one_line(ended.err)


def path_without_java(folder: Path) -> str:
    for tool in ("bash", "env", "dirname", "readlink"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    return str(folder)


def test_no_java_is_one_line_with_the_command_to_type(submit: Any, tmp_path: Path) -> None:
    ended = submit("events", env={"JAVA_HOME": None, "PATH": path_without_java(tmp_path)})
    assert (ended.code, ended.out) == (2, "")
    assert "apt-get install openjdk-17-jre-headless" in one_line(ended.err)


def test_an_old_java_is_named(submit: Any, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n", encoding="utf-8")
    java.chmod(0o755)
    ended = submit("events", env={"JAVA_HOME": str(tmp_path)})
    assert (ended.code, ended.out) == (2, "")
    assert "is Java 11" in one_line(ended.err)


def test_spark_connect_is_refused(submit: Any) -> None:
    ended = submit("events", env={"SPARK_REMOTE": "sc://localhost"})
    assert (ended.code, ended.out) == (2, "")
    assert "SPARK_REMOTE" in one_line(ended.err)


def test_a_root_that_cannot_be_written_is_one_line(submit: Any, movielens: Path, tmp_path: Path) -> None:
    # root may write everywhere, but nobody makes a folder inside a file
    (tmp_path / "file").write_text("", encoding="utf-8")
    root = tmp_path / "file" / "tables"
    ended = submit("events", "--set", f"input.path={movielens}", "--set", f"tables.root={root}")
    # Spark 3.5 starts with a line of Ivy's
    said = [line for line in ended.out.splitlines() if not line.startswith(":: loading settings")]
    assert (ended.code, said) == (2, [])
    assert str(root) in one_line(ended.err)
