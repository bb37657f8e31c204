"""The context fields of a run: which values they list, and how many training events have each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.config import Config
from fm_spark.core.context import NO_CONTEXT, ContextFields
from fm_spark.core.sequences import Sequences
from fm_spark.core.time_fields import TIME_FIELDS
from fm_spark.errors import TableError
from fm_spark.events.user_columns import declared_columns, with_attributes
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.tables.contracts import USERS
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import STAGES, Block, Slices

Counts = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class ContextData:
    """The context fields with their training events.

    Attributes:
        liked, seen: stage -> int64 [n_context], liked events and all events of each row that the stage may see; empty
            without fields.
    """

    fields: ContextFields = NO_CONTEXT
    liked: Counts = field(default_factory=dict)
    seen: Counts = field(default_factory=dict)


class ContextInput(NamedTuple):
    """What training reads for its context fields.

    Attributes:
        events: the events table, with the attributes of users where there are columns of users.
        digest: of what the fields are made from; "" without fields.
    """

    events: DataFrame
    fields: ContextFields = NO_CONTEXT
    digest: str = ""


def context_input(store: TableStore, config: Config, events: DataFrame, versions: dict[str, int]) -> ContextInput:
    """The fields that the configuration switches on.

    Args:
        versions: of the tables that training reads; that of the users is added.

    Raises:
        TableError: the users' columns are not in the ``users`` table of the events.
    """
    names = [one.name for one in declared_columns(config.input)]
    if not names:
        fields = find_fields(config.train.time, [], events, None)
        return ContextInput(events, fields, _digest(fields, events, None))
    users = _users_of(store, events, names)
    versions[USERS.name] = store.version(USERS)
    fields = find_fields(config.train.time, names, events, users)
    return ContextInput(with_attributes(events, users), fields, _digest(fields, events, users))


def _users_of(store: TableStore, events: DataFrame, names: list[str]) -> DataFrame:
    cure = "run ./spark-submit.sh events again with the same input.user_columns"
    if not store.exists(USERS):
        raise TableError(f"input.user_columns = {names!r}, and there is no table {store.path(USERS)}; {cure}")
    users = store.read(USERS)
    first, made = users.first(), events.select("run_id").first()
    there = sorted(first["attributes"]) if first is not None else []
    if first is None or made is None or first["run_id"] != made["run_id"] or not set(names) <= set(there):
        raise TableError(
            f"{store.path(USERS)} belongs to other events or lacks a column of input.user_columns = {names!r} "
            f"(it has {', '.join(there)}); {cure}"
        )
    return users


def _digest(fields: ContextFields, events: DataFrame, users: DataFrame | None) -> str:
    """Of the times and attributes, whatever the order of rows."""
    contents = [events.select(F.xxhash64("user_id", "position", "time").alias("x"))] if fields.time else []
    if users is not None:
        contents.append(users.select(F.xxhash64("user_id", F.to_json("attributes")).alias("x")))
    return "/".join(str(content.agg(F.bit_xor("x").alias("x")).collect()[0]["x"]) for content in contents)


def find_fields(
    time: Sequence[str], columns: Sequence[str], events: DataFrame, users: DataFrame | None
) -> ContextFields:
    """The fields with their values: all hours and days, the months of the events, what users have.

    Collected on the driver: they grow with the vocabulary, not with users or events.

    Args:
        time: names of fields of time; columns: names of the users' columns.
        users: the ``users`` table; None without columns.
    """
    names = tuple(name for name in TIME_FIELDS if name in time)
    values = [TIME_FIELDS[name].values or _months(events) for name in names]
    declared = tuple(sorted(columns))
    if users is not None and declared:
        entries = users.select(F.explode("attributes").alias("column", "values"))
        pairs = entries.select("column", F.explode("values").alias("value")).distinct().collect()
        found = {name: [row["value"] for row in pairs if row["column"] == name] for name in declared}
        values += [tuple(sorted(value for value in found[name] if value != UNSEEN)) for name in declared]
    return ContextFields(names, declared, tuple(values))


def _months(events: DataFrame) -> tuple[str, ...]:
    months = events.select(F.date_format("time", "yyyy-MM").alias("month")).distinct().collect()
    return tuple(sorted(row["month"] for row in months))


def count_context(slices: Slices, fields: ContextFields) -> ContextData:
    """Counts the events of each context row that each stage may see."""
    if not fields.n_rows:
        return ContextData()
    total = slices.total(lambda block: _count(block, fields.n_rows), (2 * len(STAGES), fields.n_rows))
    return ContextData(fields, dict(zip(STAGES, total[::2], strict=True)), dict(zip(STAGES, total[1::2], strict=True)))


def _count(block: Block, n_rows: int) -> npt.NDArray[np.int64]:
    found = []
    for stage in STAGES:
        view = block.view(stage)
        for counted in (view.liked.astype(np.bool_), np.ones(len(view.item), np.bool_)):
            found.append(_rows_of(view, counted, n_rows))
    return np.stack(found)


def _rows_of(view: Sequences, counted: npt.NDArray[np.bool_], n_rows: int) -> npt.NDArray[np.int64]:
    if view.context is None:
        return np.zeros(n_rows, np.int64)
    time, user = view.context
    running = np.concatenate([[0], np.cumsum(counted)])
    of_user = np.repeat(np.diff(running[view.ptr]), np.diff(user.ptr))
    total = np.bincount(time[counted].reshape(-1), minlength=n_rows)
    np.add.at(total, user.row, of_user)
    return total
