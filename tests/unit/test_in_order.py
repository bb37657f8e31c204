"""Rows that are delivered in order: a key that comes twice, or too late, is found, also between two batches."""

from __future__ import annotations

import doctest
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.errors import TableError
from fm_spark.tables import in_order
from fm_spark.tables.in_order import ascending

KEY = ("user_id", "list_name", "rank")


def batches(keys: list[tuple[Any, ...]], size: int) -> list[pa.RecordBatch]:
    schema = pa.schema([("user_id", pa.int64()), ("list_name", pa.string()), ("rank", pa.int32())])
    rows = [dict(zip(KEY, key, strict=True)) for key in keys]
    return pa.Table.from_pylist(rows, schema).to_batches(max_chunksize=size)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "Z", "é"]), st.integers(1, 3)), max_size=8),
    st.integers(1, 4),
)
def test_what_ascends_strictly_passes_and_nothing_else(keys: list[tuple[int, str, int]], size: int) -> None:
    by_bytes = [(user, name.encode(), rank) for user, name, rank in keys]
    given_batches = batches(keys, size)
    if all(a < b for a, b in pairwise(by_bytes)):
        assert list(ascending(given_batches, KEY, "top_n")) == given_batches
    else:
        with pytest.raises(TableError):
            list(ascending(given_batches, KEY, "top_n"))


def test_the_message_names_five_keys() -> None:
    with pytest.raises(TableError, match=r"table top_n: .* 7 rows .* \(1, a, 1\) after \(1, a, 1\)") as raised:
        list(ascending(batches([(1, "a", 1)] * 8, 8), KEY, "top_n"))
    assert str(raised.value).count("after") == 5


def test_a_missing_key_is_not_in_order() -> None:
    with pytest.raises(TableError, match=r"\(1, None, 2\) after \(1, a, 1\)"):
        list(ascending(batches([(1, "a", 1), (1, None, 2)], 1), KEY, "top_n"))


def test_the_example_is_right() -> None:
    assert doctest.testmod(in_order).failed == 0
