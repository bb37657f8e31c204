"""Reads what a run published, without Spark and without Java: deltalake and pyarrow do it.

Example:
    >>> import fm_spark.read
    >>> run = fm_spark.read.open("warehouse")                        # doctest: +SKIP
    >>> run.top_n(1).to_pandas()[["rank", "title", "score"]]         # doctest: +SKIP
"""

from __future__ import annotations

from fm_spark.read.snapshot import CHANGES, Id, Snapshot, open, publications

__all__ = ["CHANGES", "Id", "Snapshot", "open", "publications"]
