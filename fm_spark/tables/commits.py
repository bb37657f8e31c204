"""What Delta's log says of each commit, read from its files: the table's history would cost Spark jobs per table.

Source: Delta transaction log protocol, "Delta Log Entries" (``<version, 20 digits>.json``) and "Commit Provenance
Information"; ``userMetadata`` and ``operationMetrics`` are what Delta for Spark puts there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from fm_spark.tables.files import Folder

FORGET = "forget"
"""The job whose commits take a person out of a table, and change nothing else."""
_COMMIT_FILE = re.compile(r"\d{20}\.json")


@dataclass(frozen=True)
class Commit:
    """One version of a table; None where the log does not say.

    Attributes:
        run_id: the run that made it; rows: how many it wrote; job: the job that made it.
        read: versions of other tables that the rows were made from, by name, as far as the writer noted them.
        milliseconds: when, since 1970 UTC.
        files: names of the files that it added, removed, or noted changes in; a name occurs once in a table.
    """

    version: int
    run_id: str | None
    rows: int | None
    read: dict[str, int] = field(default_factory=dict)
    job: str | None = None
    milliseconds: int | None = None
    files: frozenset[str] = frozenset()


def newest_version(log: Folder) -> int:
    """The newest version in a ``_delta_log``; -1 when it holds no commit."""
    return max((int(name[:20]) for name in log.names() if _COMMIT_FILE.fullmatch(name)), default=-1)


def read_commit(log: Folder, version: int) -> Commit | None:
    """The commit of a version; None when its file is gone: Delta removes old ones."""
    text = log.read_text(f"{version:020d}.json")
    if text is None:
        return None
    info: dict[str, Any] = next(
        (json.loads(line)["commitInfo"] for line in text.splitlines() if line.startswith('{"commitInfo"')), {}
    )
    rows = info.get("operationMetrics", {}).get("numOutputRows")
    note = _note(info.get("userMetadata"))
    return Commit(
        version,
        note.get("run_id"),
        None if rows is None else int(rows),
        dict(note.get("read", {})),
        note.get("job"),
        info.get("timestamp"),
        frozenset(name for line in text.splitlines() for name in _file_names(line)),
    )


def commits_newest_first(log: Folder) -> Iterator[Commit]:
    """The commits whose files are still there."""
    for version in range(newest_version(log), -1, -1):
        commit = read_commit(log, version)
        if commit is None:
            return
        yield commit


def version_of_run(commits: Iterable[Commit], run_id: str, replaced: bool) -> int | None:
    """The newest version of the run; a later one in which only a person was forgotten counts as the run's.

    Args:
        commits: newest first; replaced: whether each run replaces what the table says, so that a run's content ends
            where the next run begins.
    """
    forgot: int | None = None
    for commit in commits:
        if commit.run_id == run_id:
            return forgot if forgot is not None else commit.version
        if commit.job == FORGET:
            forgot = commit.version if forgot is None else forgot
        elif commit.run_id and replaced:
            forgot = None
    return None


def _file_names(action: str) -> Iterator[str]:
    if action.startswith(('{"add"', '{"remove"', '{"cdc"')):
        (values,) = json.loads(action).values()
        yield file_name(values["path"])


def file_name(path: str) -> str:
    """The last part of a path in Delta's log or in a list of Spark's: both are encoded as URIs."""
    return unquote(path).rpartition("/")[2]


def _note(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:  # somebody else's note
        return {}
    return value if isinstance(value, dict) else {}
