"""Which files of a table may go: those that no protected version needs, and that have not been needed for some hours.

VACUUM alone goes by time, and Delta forgets a week after a file was replaced that there was one; a publication may stay
the latest for longer. So the files are chosen here, and VACUUM gets their list (``USING INVENTORY``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fm_spark.tables.commits import file_name
from fm_spark.tables.files import File
from fm_spark.tables.upkeep import Upkeep

HOUR = 3_600_000  # milliseconds
_CHANGES = "_change_data"


@dataclass(frozen=True)
class Retained:
    """What stays of a table and what goes.

    Attributes:
        versions: older versions that stay readable because a publication names them, ascending.
        complete_from: this version and all later ones stay readable.
        gone: the files that go.
        unreadable: versions that a publication names and whose log is gone already.
        oldest: commit time of the oldest version that stays, milliseconds since 1970 UTC; None when the log is silent.
    """

    versions: tuple[int, ...]
    complete_from: int
    gone: tuple[File, ...]
    unreadable: tuple[int, ...]
    oldest: int | None

    @property
    def bytes(self) -> int:
        """Size of the files that go."""
        return sum(file.size for file in self.gone)


def retained(table: Upkeep, files: Iterable[File], protected: Iterable[int], now: int, hours: float) -> Retained:
    """Decides what of a table stays.

    Args:
        files: what lies in the table's folder; protected: versions that publications name.
        now: milliseconds since 1970 UTC; hours: how long a file stays that nothing needs any more. It protects who
            reads an older version just now, and a job whose commit is still to come.
    """
    store, contract = table.store, table.contract
    newest, threshold = store.version(contract), now - int(hours * HOUR)
    complete_from, needed = _complete_from(table, newest, threshold)
    versions = sorted(version for version in set(protected) if version < complete_from)
    of_version = {version: table.files_of(version) for version in [*versions, newest]}
    needed = needed.union(*(names for names in of_version.values() if names is not None))
    if versions and table.properties().get("delta.enableChangeDataFeed") == "true":
        needed |= _named_since(table, versions[0], newest)
    root = store.uri(contract)
    gone = [
        file
        for file in files
        if file.modified < threshold and file_name(file.uri) not in needed and is_data(file.uri.removeprefix(root))
    ]
    kept = tuple(version for version in versions if of_version[version] is not None)
    lost = tuple(version for version in versions if of_version[version] is None)
    first = store.commit(contract, min([*kept, complete_from]))
    return Retained(kept, complete_from, tuple(gone), lost, first.milliseconds if first else None)


def is_data(path: str) -> bool:
    """Whether VACUUM may ever touch a file: hidden ones, the log above all, are not data.

    Args:
        path: below the table's folder.
    """
    parts = path.strip("/").split("/")
    if parts[0] == _CHANGES:
        parts = parts[1:]
    return not any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)


def _complete_from(table: Upkeep, newest: int, threshold: int) -> tuple[int, set[str]]:
    """The version that was the newest at the threshold, and the names that later commits mention."""
    version, needed = newest, set[str]()
    while version > 0:
        commit = table.store.commit(table.contract, version)
        if commit is None or commit.milliseconds is None or commit.milliseconds < threshold:
            break
        needed |= commit.files
        version -= 1
    return version, needed


def _named_since(table: Upkeep, oldest: int, newest: int) -> set[str]:
    """Files of the commits after ``oldest``: who asks what has changed since then reads them."""
    commits = (table.store.commit(table.contract, version) for version in range(oldest + 1, newest + 1))
    return {name for commit in commits if commit for name in commit.files}
