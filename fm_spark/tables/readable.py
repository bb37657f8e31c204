"""Which versions of a table maintenance has left, written into the table itself, for readers with and without Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fm_spark.errors import TableError

READABLE = "fm_spark.readable"
"""Table property: the older versions that can still be read, and from which version on all can: ``3,5,9+``."""


def described(versions: Sequence[int], complete_from: int) -> str:
    """The value of the property."""
    return ",".join([*map(str, versions), f"{complete_from}+"])


def check_readable(properties: Mapping[str, str], table: str, version: int) -> None:
    """Refuses a version whose files maintenance has removed.

    Args:
        properties: the table's properties; without :data:`READABLE` nothing was removed.

    Raises:
        TableError: the message names the versions that are left.
    """
    *single, last = properties.get(READABLE, "0+").split(",")
    complete_from = int(last.removesuffix("+"))
    if version < complete_from and str(version) not in single:
        left = " and ".join(filter(None, [", ".join(single), f"{complete_from} and later ones"]))
        raise TableError(
            f"version {version} of table {table} was removed by maintenance, which keeps what the last "
            f"maintain.keep_publications publications name; left are {left}. Open a later publication"
        )
