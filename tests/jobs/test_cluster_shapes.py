"""The same bits whatever the Spark: one core or several, own executors, tasks that fail, executors that die."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fm_spark.submit import session_environment

PROGRAM = Path(__file__).with_name("train_shape.py")
PROJECT = PROGRAM.parents[2]
SHAPES = {
    # the second number: how often a task may fail
    "local[2,4]": ("plain", "one", "many", "plain-without-aqe", "failing"),
    "local[1]": ("plain",),
    # two executors of one core and 1 GiB each, in processes of their own
    "local-cluster[2,1,1024]": ("speculation", "killed"),
}


def shape(master: str, folder: Path) -> dict[str, str]:
    """Variant -> sha256 of the parameters."""
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), master, str(folder), *SHAPES[master]],
        env={**os.environ, **session_environment(os.environ), "PYTHONPATH": str(PROJECT)},
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(line.split() for line in ended.stdout.splitlines() if " " in line)


def test_every_shape_of_a_cluster_trains_the_same_bits(tmp_path: Path) -> None:
    found: dict[tuple[str, str], str] = {}
    for number, master in enumerate(SHAPES):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = shape(master, folder)
        assert tuple(made) == SHAPES[master]
        found |= {(master, variant): digest for variant, digest in made.items()}
    assert len(set(found.values())) == 1, found
    # what was to go wrong did go wrong
    noted = {file.name.split("-")[0] for file in tmp_path.glob("*/*-*")}
    assert {"failed", "killed"} == noted
