"""User histories as packed blocks in the memory of the executors: one persisted RDD for every slice of an epoch.

Which block and which slice a user belongs to follows from a hash of his id and from the size of the data, never from
partitions, cores or executors; so does the order of users in a block.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import RDD, Broadcast, StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.core.context import NO_CONTEXT, ContextFields
from fm_spark.core.fm_machine import Ids
from fm_spark.core.sequences import UNUSED, Sequences, hold_out, select
from fm_spark.events.sequences import COLUMNS, TIME, VALUE, context_columns, pack
from fm_spark.events.user_columns import ATTRIBUTES

VALIDATION, EVALUATION, PUBLISH = "tune", "evaluation", "publish"
"""The stages of a run: which events may be seen."""
Counts = npt.NDArray[np.int64]
T = TypeVar("T")
STAGES = (VALIDATION, EVALUATION, PUBLISH)


@dataclass(frozen=True)
class Block:
    """One logical block of one slice.

    Attributes:
        slice: which round of an epoch it belongs to, from 0.
        number: which block of the slice, from 0.
        sequences: its users in ascending order of their ids; ``user`` holds 64-bit hashes of the ids.
        validation: uint8 [n_events], how the tail of the training part is cut for validation.
        row: int32 [n_users], the users' rows of the parameters; None where users are no features.
    """

    slice: int
    number: int
    sequences: Sequences
    validation: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int32] | None = None

    def view(self, stage: str) -> Sequences:
        """The events that training may see in a stage."""
        if stage == PUBLISH:
            return self.sequences
        if stage == EVALUATION:
            return select(self.sequences, self.sequences.part == 0)
        return select(self.sequences, self.validation == 0)


@dataclass(frozen=True)
class Slices:
    """The blocks in the memory of the executors, which the first job over them fills.

    Attributes:
        packed: what the blocks are read from; kept until the first job over all of them.
        parts: rounds that read the same slice, each a part of its events (:class:`~fm_spark.core.plan.Part`); 1 where
            every round has a slice of its own.
        ids: the users' ids on the executors, which a lost block is packed with again; None where blocks have no rows.
    """

    rdds: list[RDD[Block]]
    n_blocks: int
    packed: DataFrame
    parts: int = 1
    ids: Broadcast[Ids] | None = None

    @property
    def n_rounds(self) -> int:
        """Rounds an epoch."""
        return len(self.rdds) * self.parts

    def of_round(self, r: int) -> RDD[Block]:
        """The blocks that round r (from 0) of an epoch reads."""
        return self.rdds[r % len(self.rdds)]

    @property
    def all(self) -> RDD[Block]:
        """The blocks of all slices: one job over them costs less than a job for each slice."""
        return self.rdds[0].context.union(self.rdds)

    def total(self, count: Callable[[Block], Counts], shape: tuple[int, ...]) -> Counts:
        """Adds up what ``count`` (int64 of ``shape``) gives for every block; zeros without blocks."""
        found = self.reduce(count, _plus)
        return np.zeros(shape, np.int64) if found is None else found

    def reduce(self, count: Callable[[Block], T], merge: Callable[[T | None, T | None], T | None]) -> T | None:
        """Merges what ``count`` gives for every block; None without blocks."""
        found = self.all.map(count).treeAggregate(None, merge, merge, 2)
        # the blocks are in memory now
        self.packed.unpersist()
        return found

    def unpersist(self) -> None:
        """Releases the memory of the executors."""
        self.packed.unpersist()
        for rdd in self.rdds:
            rdd.unpersist()
        if self.ids is not None:
            self.ids.destroy()


def _plus(a: Counts | None, b: Counts | None) -> Counts | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def pack_slices(
    events: DataFrame,
    feature_to_item: npt.NDArray[np.int32],
    n_blocks: int,
    n_rounds: int,
    partitions: int,
    validation: tuple[float, int],
    values: bool = False,
    context: ContextFields = NO_CONTEXT,
    users: Ids | None = None,
    parts: int = 1,
) -> Slices:
    """Packs the events table into slices of ``n_blocks`` blocks, persisted once a job has read them.

    Args:
        events: the events table; where users have fields, with
            :func:`~fm_spark.events.user_columns.with_attributes`.
        partitions: how many tasks a round gets; does not change any result.
        validation: share of the positives and fewest positives of the validation cut.
        values: whether the sequences hold the ratings.
        context: the context fields that the sequences hold.
        parts: how many of the ``n_rounds`` rounds of an epoch share a slice; a divisor of ``n_rounds``.
        users: ids of all users in ascending order; with them blocks know their users' rows, the places in this list.
    """
    further = [*([F.col(VALUE)] if values else []), *context_columns(context)]
    placed = _placed(events, n_blocks, n_rounds // parts, partitions, further)
    ids = events.sparkSession.sparkContext.broadcast(users) if users is not None else None
    packed = _packed(placed, feature_to_item, validation, context, ids).persist(StorageLevel.MEMORY_AND_DISK)
    rdds = []
    for r in range(n_rounds // parts):
        one = packed.where(F.col("slice") == r).select("payload")
        rdds.append(one.rdd.map(lambda row: _load(row[0])).persist(StorageLevel.MEMORY_AND_DISK))
    return Slices(rdds, n_blocks, packed, parts, ids)


def _placed(events: DataFrame, n_blocks: int, n_slices: int, partitions: int, further: list[Column]) -> DataFrame:
    """Slice, block and user of every event, and what is packed; blocks whole and in order in their partitions."""
    keyed = events.select(
        F.pmod(F.xxhash64("user_id", F.lit("slice")), F.lit(n_slices)).cast("int").alias("slice"),
        F.pmod(F.xxhash64("user_id", F.lit("block")), F.lit(n_blocks)).cast("int").alias("block"),
        F.col("user_id"),
        F.xxhash64("user_id").alias("user"),
        F.col("position"),
        *[F.col(name) for name in COLUMNS if name != "user_id"],
        *further,
    )
    even = _even_keys(events.sparkSession, partitions)
    task = F.element_at(F.array(*map(F.lit, even)), F.col("block") % F.lit(partitions) + 1)
    ordered = keyed.repartition(partitions, task).sortWithinPartitions("slice", "block", "user_id", "position")
    return ordered.drop("position")


def _packed(
    placed: DataFrame,
    feature_to_item: npt.NDArray[np.int32],
    validation: tuple[float, int],
    context: ContextFields,
    ids: Broadcast[Ids] | None,
) -> DataFrame:
    if ids is None:
        placed = placed.drop("user_id")

    def to_blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for key, table in _groups(batches):
            rows = None if ids is None else ids.value
            block = _block(key, table, feature_to_item, validation, context, rows)
            payload = pickle.dumps(block, protocol=5)
            yield pa.RecordBatch.from_pydict({"slice": pa.array([key[0]], pa.int32()), "payload": [payload]})

    return placed.mapInArrow(to_blocks, "slice int, payload binary")


def _even_keys(spark: SparkSession, partitions: int) -> list[int]:
    """A number for each partition that Spark's hash partitioning sends there.

    Hashing the numbers of a few dozen blocks themselves would give some tasks three times the work of others.
    """
    number = F.col("id").cast("int")  # a literal's type: the hash of a bigint is another one
    place = F.pmod(F.hash(number), F.lit(partitions)).alias("place")
    found = {row["place"]: row["id"] for row in spark.range(64 + 16 * partitions).select("id", place).collect()}
    return [found.get(p, p) for p in range(partitions)]


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
    """Cuts the sorted rows where (slice, block) changes; a group may span batches."""
    held: list[pa.RecordBatch] = []
    current: tuple[int, int] | None = None
    for batch in batches:
        key = batch.column("slice").to_numpy().astype(np.int64) << 32 | batch.column("block").to_numpy()
        edges = np.flatnonzero(np.diff(key)) + 1
        for begin, end in zip([0, *edges], [*edges, batch.num_rows], strict=True):
            if begin == end:
                continue
            here = (int(key[begin] >> 32), int(key[begin] & 0xFFFFFFFF))
            if current is not None and here != current:
                yield current, pa.Table.from_batches(held)
                held = []
            current = here
            held.append(batch.slice(begin, end - begin))
    if current is not None:
        yield current, pa.Table.from_batches(held)


def _block(
    key: tuple[int, int],
    table: pa.Table,
    feature_to_item: npt.NDArray[np.int32],
    validation: tuple[float, int],
    context: ContextFields,
    ids: Ids | None,
) -> Block:
    columns = {name: table[name] for name in (*COLUMNS, VALUE, TIME, ATTRIBUTES) if name in table.column_names}
    sequences = pack(pa.table({**columns, "user_id": table["user"]}), feature_to_item, context)
    cut = np.full(len(sequences.item), UNUSED, np.uint8)
    train = sequences.part == 0
    cut[train] = hold_out(select(sequences, train), *validation)
    row = None
    if ids is not None:
        row = np.searchsorted(ids, table["user_id"].to_numpy()[sequences.ptr[:-1]]).astype(np.int32)
    return Block(key[0], key[1], sequences, cut, row)


def _load(payload: bytes | bytearray) -> Block:
    block: Block = pickle.loads(bytes(payload))
    return block
