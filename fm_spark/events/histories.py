"""Where rankings take the users' histories from, and how tasks get them: by Spark, or straight from the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.core.context import NO_CONTEXT, ContextFields
from fm_spark.events.history_files import RowGroup, UserRange, row_groups, rows_of_ranges, user_ranges
from fm_spark.events.sequences import TIME, context_columns
from fm_spark.tables.contracts import EVENTS
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.handle import Handle
from fm_spark.tables.store import TableStore

Read = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


class Parts(NamedTuple):
    """Histories in partitions: each holds a range of whole users, in order, each in that of his history.

    Attributes:
        source: what a task gets as Arrow batches; read: makes of them the rows, columns user_id, item_feature, label,
            what the context fields need, and perhaps split.
    """

    source: DataFrame
    read: Read


class Histories(Protocol):
    """The histories of all users."""

    @property
    def spark(self) -> SparkSession:
        """The session whose tasks read them."""

    @property
    def user_type(self) -> T.DataType:
        """The type of user_id."""

    def n_users(self) -> int:
        """Number of users."""

    def newest(self) -> int:
        """Time of the newest event, microseconds since 1970 UTC."""

    def parts(self, n: int, context: ContextFields = NO_CONTEXT) -> Parts:
        """The histories in at most ``n`` partitions."""


class SparkHistories:
    """Histories out of a frame, which Spark brings into order.

    Args:
        events: user_id, position, item_feature, label, what the context fields need, and perhaps split.
    """

    def __init__(self, events: DataFrame) -> None:
        self.events = events

    @property
    def spark(self) -> SparkSession:
        """The session whose tasks read them."""
        return self.events.sparkSession

    @property
    def user_type(self) -> T.DataType:
        """The type of user_id."""
        return self.events.schema["user_id"].dataType

    def n_users(self) -> int:
        """Number of users."""
        return self.events.where("position = 0").count()

    def newest(self) -> int:
        """Time of the newest event, microseconds since 1970 UTC; 0 without any."""
        return int(self.events.agg(F.max(F.unix_micros("time"))).collect()[0][0] or 0)

    def parts(self, n: int, context: ContextFields = NO_CONTEXT) -> Parts:
        """The histories in at most ``n`` partitions."""
        split = ["split"] if "split" in self.events.columns else []
        by_user = self.events.coalesce(1) if n == 1 else self.events.repartitionByRange(n, "user_id")
        columns = [F.col(name) for name in ("user_id", "item_feature", "label", *split)]
        ordered = by_user.sortWithinPartitions("user_id", "position")
        return Parts(ordered.select(*columns, *context_columns(context)), iter)


class FileHistories:
    """Histories out of the files of the events table, which tasks read by themselves."""

    def __init__(self, spark: SparkSession, user_type: T.DataType, table: Handle, groups: Sequence[RowGroup]) -> None:
        self.spark, self.user_type = spark, user_type
        self._table, self._groups = table, groups

    def n_users(self) -> int:
        """Number of users."""
        return self._table.count(pc.field("position") == 0)

    def newest(self) -> int:
        """Time of the newest event, microseconds since 1970 UTC; 0 without any."""
        greatest = [pc.max(batch.column(0)).cast(pa.int64()) for batch in self._table.batches(["time"])]
        return max((one.as_py() for one in greatest if one.is_valid), default=0)

    def parts(self, n: int, context: ContextFields = NO_CONTEXT) -> Parts:
        """The histories in at most ``n`` partitions."""
        ranges = user_ranges(self._groups, n)
        # one row a task, which says which range is its own
        numbers = self.spark.range(0, len(ranges), 1, len(ranges))
        return Parts(numbers, partial(_from_files, self._groups, ranges, bool(context.time)))


def file_histories(store: TableStore, version: int) -> FileHistories | None:
    """The histories of a version of ``events`` straight from its files; None where they cannot be taken from there.

    They can on a local root, which all tasks see, while the files are as the job ``events`` has written them:
    maintenance and forgetting may bring other orders.
    """
    commit = store.commit(EVENTS, version)
    if store.local_root is None or commit is None or commit.job != WRITTEN_BY[EVENTS.name]:
        return None
    table = Handle(store.path(EVENTS), version)
    groups = row_groups(table.files()) if table.is_plain else None
    if groups is None:
        return None
    return FileHistories(store.spark, store.columns(EVENTS)["user_id"].dataType, table, groups)


def _from_files(
    groups: Sequence[RowGroup], ranges: Sequence[UserRange], timed: bool, numbers: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    columns = ["item_feature", "label", *(["time"] if timed else [])]
    for batch in rows_of_ranges(groups, ranges, columns, numbers):
        yield batch.append_column(TIME, batch.column("time").cast(pa.int64())) if timed else batch
