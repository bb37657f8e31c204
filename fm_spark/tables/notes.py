"""What every commit says of itself: the run, the job, the code and the configuration that made it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fm_spark import __version__
from fm_spark.config import Config

_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Lineage:
    """Who writes.

    Attributes:
        job: the job, of the pipeline the step; ``""`` outside of jobs.
        config: digest of the effective configuration, of :meth:`~fm_spark.config.Config.digest`.
    """

    job: str = ""
    config: str = ""


_CURRENT: ContextVar[Lineage] = ContextVar("lineage", default=Lineage())  # noqa: B039, it is frozen


@contextmanager
def lineage(job: str, config: Config) -> Iterator[None]:
    """Every commit of the block, and of the threads that it starts side by side, names this job and configuration."""
    before = _CURRENT.set(Lineage(job, config.digest()))
    try:
        yield
    finally:
        _CURRENT.reset(before)


def note_of(table: str, run_id: str, usual_job: str, read: Mapping[str, int] | None = None) -> str:
    """The ``userMetadata`` of a commit, JSON.

    Args:
        usual_job: the job named when none has been set.
        read: versions of other tables that the rows were made from, by name.
    """
    current = _CURRENT.get()
    values: dict[str, object] = {
        "run_id": run_id,
        "job": current.job or usual_job,
        "table": table,
        "fm_spark": __version__,
        "git": git_commit(),
        "config": current.config,
    }
    return json.dumps(values | ({"read": dict(read)} if read else {}))


@cache
def git_commit() -> str:
    """Short hash of the code's git commit, ``-dirty`` when files differ from it; ``""`` when it is not in git."""
    if not (_PROJECT / ".git").exists():
        return ""  # installed from a wheel: the version says it all
    command = ["git", "-C", str(_PROJECT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""  # no git, or somebody else's folder
    return done.stdout.strip()
