"""Users in blocks small enough to rank, and what a ranking task shares with the driver.

Imported by Python workers, so it imports nothing that a task does not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession

from fm_spark.core.context import NO_CONTEXT, ContextFields
from fm_spark.core.sequences import Sequences, users_between
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.sequences import sequences_from_arrow

T = TypeVar("T")

# bounds of a block in a task: what is packed at once, and the rows of users x candidates that ranking holds
_BLOCK_EVENTS = 250_000
_BLOCK_USERS = 2_048
_PARTITION_EVENTS = 500_000
# a row of a list on disk takes 13 to 20 bytes, more with explanations; files that are read well, and how small is small
_ROW_BYTES = 16
_FILE_BYTES = 160 * 2**20
_SMALLEST_FILE = 96 * 2**20
SCORES = 500_000_000
"""Pairs that one core scores in a second, roughly."""


def partitions_for(spark: SparkSession, catalogue: Catalogue) -> int:
    """How many tasks rank the users: one for each core, more when a task would hold more than half a million events."""
    return max(spark.sparkContext.defaultParallelism, -(-int(catalogue.count.sum()) // _PARTITION_EVENTS))


def list_tasks(spark: SparkSession, n_users: int, n: int, n_items: int) -> int:
    """How many tasks make the lists, each of which writes one file.

    As many as cores, or twice as many, so that none waits long for another, where the files do not become small by it;
    the more of them, the larger the table. A small table is one file, unless its scores take one core too long.

    Args:
        n: rows of a user.
    """
    cores = spark.sparkContext.defaultParallelism
    size = n_users * n * _ROW_BYTES
    fewest, most = -(-size // _FILE_BYTES), size // _SMALLEST_FILE
    busy = min(cores, n_users * n_items // SCORES)
    return max(fewest, most if most < cores else min(most // cores * cores, 2 * cores), busy, 1)


def user_blocks(
    batches: Iterable[pa.RecordBatch], feature_to_item: npt.NDArray[np.int32], context: ContextFields = NO_CONTEXT
) -> Iterator[Sequences]:
    """Packs the rows of ``ordered_events`` into blocks small enough to rank: at most 2,048 users."""
    for block in sequences_from_arrow(batches, feature_to_item, _BLOCK_EVENTS, context):
        for first in range(0, block.n_users, _BLOCK_USERS):
            yield users_between(block, first, first + _BLOCK_USERS)


def start_workers(spark: SparkSession, module: str) -> None:
    """Has a Python worker start on every core and import a module, which takes seconds in a new session.

    Side by side with what the driver reads for a job it costs nothing; where workers run already, next to nothing.
    """
    cores = spark.sparkContext.defaultParallelism
    spark.range(0, cores, 1, cores).mapInArrow(partial(_imported, module), "n int").collect()


def _imported(module: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        import_module(module)
    yield pa.RecordBatch.from_pydict({"n": pa.array([1], pa.int32())})


@contextmanager
def broadcast(spark: SparkSession, value: T) -> Iterator[Broadcast[T]]:
    """Sends a value to the executors once and frees it there and on the driver when the block ends."""
    sent = spark.sparkContext.broadcast(value)
    try:
        yield sent
    finally:
        sent.destroy()
