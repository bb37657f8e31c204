"""kill -9 of train at several random points, the same command again: the parameters of a run that nobody disturbed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

PROJECT = Path(__file__).resolve().parents[2]
RUN = "killed"
KILLS = 3
# 32 rounds of validation and some more, a checkpoint after every third one; one candidate
SETTINGS = [
    "train.k=4", "train.epochs=8", "train.patience=8", "train.decays=[0.5]", "train.target_decay=0.2",
    "train.negatives=16", "train.blocks=2", "train.rounds=4", "train.tune_seconds=0", "train.checkpoint_rounds=3",
]  # fmt: skip


def words(root: Path) -> list[str]:
    settings = [f"tables.root={root}", *SETTINGS]
    return ["--run-id", RUN, *[word for setting in settings for word in ("--set", setting)]]


@pytest.fixture(scope="module")
def made_events(submit: Any, movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of ``events`` for a few users, to be copied."""
    root = tmp_path_factory.mktemp("resume") / "events"
    ended = submit("events", "--set", f"input.path={movielens}", *words(root))
    assert ended.code == 0, ended.err
    return root


def parameters(root: Path) -> str:
    """The sha256 of the run's parameters."""
    rows = DeltaTable(root / "fm_parameters").to_pandas().sort_values(["model_version", "feature"])
    total = hashlib.sha256(rows[["model_version", "field", "value", "feature", "bias"]].to_csv().encode())
    for vector in rows["factors"]:
        total.update(vector.tobytes())
    return total.hexdigest()


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, of which nothing is left at the end."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(PROJECT / "spark-submit.sh"), *command],
            env={**os.environ, "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1", "SPARK_MASTER": "local[2]"},
            cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            yield child
        finally:
            kill_session(child.pid)
            child.wait()


def kill_session(session: int) -> None:
    """SIGKILL for every process of a session: the script, the JVM, the driver and its workers."""
    while members := of_session(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def of_session(session: int) -> list[int]:
    """The living processes of a session, from /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # after the name, which may hold anything: state, parent, group, session
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(folder.name))
    return found


def kill_after(commit: Path, seconds: float, log: Path) -> None:
    """Starts train on the tables of a commit of theirs, and kills it so long after that commit is there."""
    with started(["train", *words(commit.parents[2])], log) as child:
        while not commit.exists():
            assert child.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        time.sleep(seconds)
        assert child.poll() is None, "train ended before it could be killed; give it more rounds"


def test_a_train_that_is_killed_again_and_again_ends_with_the_same_parameters(
    submit: Any, made_events: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"kills are drawn with KILL_SEED={seed}")
    draw = random.Random(seed)
    disturbed, undisturbed, log = tmp_path / "disturbed", tmp_path / "undisturbed", tmp_path / "log"
    for root in (disturbed, undisturbed):
        shutil.copytree(made_events, root)
    last = -1
    for _ in range(KILLS):
        # one of the next two checkpoints, and a moment after it
        last += draw.choice((1, 2))
        kill_after(disturbed / "checkpoints" / "_delta_log" / f"{last:020d}.json", draw.uniform(0.0, 1.0), log)
        assert not (disturbed / "fm_model").exists()
        last = max(int(commit.stem) for commit in (disturbed / "checkpoints" / "_delta_log").glob("*.json"))

    again = submit("train", *words(disturbed))
    assert again.code == 0, again.err
    assert f"continuing run {RUN} from checkpoint" in again.err
    assert len(DeltaTable(disturbed / "checkpoints").to_pandas()) == 0
    # what nobody disturbs needs no checkpoints either
    whole = submit("train", *words(undisturbed), "--set", "train.checkpoint_rounds=0")
    assert whole.code == 0, whole.err
    assert not (undisturbed / "checkpoints").exists()
    assert parameters(disturbed) == parameters(undisturbed)
