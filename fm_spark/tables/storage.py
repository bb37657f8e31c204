"""Failures of the place where the tables lie, as one message: which place, what is wrong with it, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fm_spark.errors import FmSparkError, StorageError
from fm_spark.failures import explain

# what the operating system says -> what it means, and the cure
_KNOWN = {
    "No space left on device": (
        "the disk is full",
        "free some space there, or in Spark's scratch folder (spark.local.dir)",
    ),
    "Disk quota exceeded": ("the quota is used up", "free some space or have it raised"),
    "Read-only file system": ("the file system is read-only", "have it mounted for writing"),
    "Input/output error": ("the disk reports an error", "have it checked"),
}


def storage_error(place: str, text: str) -> StorageError | None:
    """The error for what the operating system said while ``place`` was written; None when it is something else."""
    for said, (meaning, cure) in _KNOWN.items():
        if said in text:
            return StorageError(
                f"cannot write {place}: {meaning} ({said}); {cure}, or set another tables.root, and give the same "
                "command again with the same --run-id. Nothing half-written is visible: every table keeps its last "
                "good version"
            )
    return None


@contextmanager
def storage_problems(place: str) -> Iterator[None]:
    """Turns a full or read-only disk that the block meets into a :class:`~fm_spark.errors.StorageError`."""
    try:
        yield
    except FmSparkError:
        raise
    except Exception as error:
        found = storage_error(place, f"{explain(error)[0]}\n{error}")
        if found is None:
            raise
        raise found from error
