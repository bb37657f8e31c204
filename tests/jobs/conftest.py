"""Runs the real ./spark-submit.sh, on a folder of a few real MovieLens users."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUNDLED = PROJECT / "data" / "ml-latest-small"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Submit = Callable[..., Ended]


@pytest.fixture(scope="session")
def submit() -> Submit:
    """``submit("events", "--set", ..., env={...}, cwd=folder)`` runs ./spark-submit.sh and returns how it ended.

    A variable of ``env`` that is None is taken out of the environment.
    """

    def run(
        *words: str,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        script: Path = PROJECT / "spark-submit.sh",
    ) -> Ended:
        variables: dict[str, str | None] = {
            **os.environ,
            # the first compiler alone: a short job never earns back what the optimising one costs
            "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1",
            "SPARK_MASTER": "local[2]",
            "PYSPARK_SUBMIT_ARGS": None,
            **(env or {}),
        }
        ended = subprocess.run(
            [str(script), *words],
            env={name: value for name, value in variables.items() if value is not None},
            cwd=cwd or PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of ml-latest with the first 40 users of the bundled ratings and the items they rated."""
    return small_movielens(tmp_path_factory.mktemp("movielens"), users=40)


def small_movielens(folder: Path, users: int) -> Path:
    """Writes the ratings, tags, movies and links of the first ``users`` users of the bundled set to ``folder``."""
    ratings = _copy(folder, "ratings.csv", lambda row: int(row["userId"]) <= users)
    items = {row["movieId"] for row in ratings}
    _copy(folder, "tags.csv", lambda row: int(row["userId"]) <= users and row["movieId"] in items)
    for name in ("movies.csv", "links.csv"):
        _copy(folder, name, lambda row: row["movieId"] in items)
    return folder


def _copy(folder: Path, name: str, keep: Callable[[dict[str, str]], bool]) -> list[dict[str, str]]:
    with (BUNDLED / name).open(encoding="utf-8", newline="") as source:
        reader = csv.DictReader(source)
        rows = [row for row in reader if keep(row)]
    with (folder / name).open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(rows)
    return rows
