"""What Delta's log says of each commit, read from its files: the table's history would cost Spark jobs per table.

Source: Delta transaction log protocol, "Delta Log Entries" (``<version, 20 digits>.json``) and "Commit Provenance
Information"; ``userMetadata`` and ``operationMetrics`` are what Delta for Spark puts there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fm_spark.tables.files import Folder

_COMMIT_FILE = re.compile(r"\d{20}\.json")


@dataclass(frozen=True)
class Commit:
    """One version of a table: the run that made it and the rows it wrote, None where the log does not say.

    Attributes:
        read: versions of other tables that the rows were made from, by name, as far as the writer noted them.
    """

    version: int
    run_id: str | None
    rows: int | None
    read: dict[str, int] = field(default_factory=dict)


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
    return Commit(version, note.get("run_id"), None if rows is None else int(rows), dict(note.get("read", {})))


def commits_newest_first(log: Folder) -> Iterator[Commit]:
    """The commits whose files are still there."""
    for version in range(newest_version(log), -1, -1):
        commit = read_commit(log, version)
        if commit is None:
            return
        yield commit


def _note(text: str | None) -> dict[str, Any]:
    """What the writer noted; empty for somebody else's note."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
