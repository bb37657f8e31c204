"""Columns of the users' file as context features of all events of a user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.config_sections import InputConfig
from fm_spark.core.context import ContextFields
from fm_spark.core.fm_events import Features, no_features
from fm_spark.events.attributes import Attribute, parse_attributes

ATTRIBUTES = "user_attributes"
"""Column of events: the attributes of their user, in the row of his first event alone."""


def declared_columns(config: InputConfig) -> tuple[Attribute, ...]:
    """The columns of ``input.user_columns``.

    Raises:
        ConfigError: not of the form "name:kind".
    """
    return parse_attributes(config.user_columns, "input.user_columns", config.users_id_column)


def with_attributes(events: DataFrame, users: DataFrame) -> DataFrame:
    """Adds :data:`ATTRIBUTES`, null for a user without a row.

    Args:
        users: the ``users`` table, one row a user.
    """
    own = users.select("user_id", F.col("attributes").alias(ATTRIBUTES))
    first = F.when(F.col("position") == 0, F.col(ATTRIBUTES))
    return events.join(own, on="user_id", how="left").withColumn(ATTRIBUTES, first)


def user_features(attributes: pa.ChunkedArray | None, fields: ContextFields, n_users: int) -> Features:
    """The context features of users: a column's n values with 1 / sqrt(n) each, its first row when it has none.

    Values that a field does not list all become its first row.

    Args:
        attributes: map<string, array<string>> [n_users], may be null; None for no columns.
    """
    if attributes is None or not fields.user:
        return no_features(n_users)
    maps = attributes.combine_chunks()
    n_time = len(fields.time)
    own = zip(fields.user, fields.offsets[n_time:], fields.values[n_time:], strict=True)
    pairs = [_column(pc.map_lookup(maps, name, "first"), int(first), values) for name, first, values in own]
    user, row = (np.concatenate(part) for part in zip(*pairs, strict=True))
    field = np.searchsorted(fields.offsets, row, side="right")
    order = np.lexsort((row, user))
    # how many rows of the same field the user has
    _, place, size = np.unique(user * (len(fields.values) + 1) + field, return_inverse=True, return_counts=True)
    value = (1.0 / np.sqrt(size[place])).astype(np.float32)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))]).astype(np.int64)
    return Features(ptr, row[order].astype(np.int32), value[order])


def _column(
    lists: pa.Array, first: int, values: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct (user, context row) of one column; lists: array<string> [n_users], null for none."""
    user = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    place = pc.index_in(pc.list_flatten(lists), value_set=pa.array(values, pa.string()))
    row = pc.fill_null(place, -1).to_numpy().astype(np.int64) + (first + 1)
    without = np.setdiff1d(np.arange(len(lists)), user)
    pairs = np.stack([np.append(user, without), np.append(row, np.full(len(without), first))])
    found = np.unique(pairs, axis=1)
    return found[0], found[1]
