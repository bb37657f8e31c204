"""Look-ups straight from the files: the rows that pyarrow's datasets find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import WriterProperties, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.errors import TableError
from fm_spark.tables.handle import Handle, any_of

SCHEMA = pa.schema(
    [("run_id", pa.string()), ("user_id", pa.int64()), ("score", pa.float64()), ("tags", pa.list_(pa.string()))]
)
ROW = st.tuples(st.sampled_from(["r1", "r2", None]), st.integers(-3, 12) | st.none(), st.floats(0, 1))


def table(rows: list[tuple[Any, Any, float]]) -> pa.Table:
    return pa.table([[row[i] for row in rows] for i in range(3)] + [[[str(row[1])] for row in rows]], schema=SCHEMA)


@given(
    files=st.lists(st.lists(ROW, min_size=1, max_size=30), min_size=1, max_size=4),
    run=st.sampled_from([["r1"], ["r1", None], ["r3"], [None]]),
    users=st.sampled_from([[1], [3, 7], [None, 2], [99]]) | st.none(),
    group_rows=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_a_dataset(
    tmp_path_factory: pytest.TempPathFactory, files: list[Any], run: list[Any], users: Any, group_rows: int
) -> None:
    path = str(tmp_path_factory.mktemp("tables") / "t")
    for rows in files:
        ordered = sorted(rows, key=lambda row: (row[1] is None, row[1] or 0))
        groups = WriterProperties(max_row_group_size=group_rows)
        write_deltalake(path, table(ordered), mode="append", writer_properties=groups)
    handle = Handle(path, None)
    where = {"run_id": run, **({"user_id": users} if users else {})}
    found, expected = handle.find(where), handle.read(None, any_of(where, SCHEMA))
    assert found.schema == SCHEMA
    assert sorted(found.to_pylist(), key=str) == sorted(expected.to_pylist(), key=str)
    some = handle.find(where, ["score", "user_id"])
    assert some.column_names == ["score", "user_id"]
    assert some.num_rows == found.num_rows


def test_without_conditions_every_row_is_found(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path), table([("r1", 1, 0.5), (None, 2, 0.25)]))
    assert Handle(str(tmp_path), None).find({}).num_rows == 2


def test_a_column_that_came_later_is_null_in_older_files(tmp_path: Path) -> None:
    path = str(tmp_path)
    write_deltalake(path, table([("r1", 1, 0.5)]).drop_columns(["tags"]))
    write_deltalake(path, table([("r2", 1, 0.75)]), mode="append", schema_mode="merge")
    handle = Handle(path, None)
    found = {row["run_id"]: row["tags"] for row in handle.find({"user_id": [1]}).to_pylist()}
    assert found == {"r1": None, "r2": ["1"]}
    assert handle.find({"user_id": [1], "run_id": ["r1"]})["tags"].to_pylist() == [None]


def test_files_that_cannot_hold_a_row_are_not_opened(tmp_path: Path) -> None:
    path = str(tmp_path)
    write_deltalake(path, table([("r1", user, 0.5) for user in range(5)]))
    first = next(tmp_path.glob("*.parquet"))
    write_deltalake(path, table([("r1", user, 0.5) for user in range(5, 9)]), mode="append")
    handle = Handle(path, None)
    first.unlink()
    assert handle.find({"user_id": [7]}).num_rows == 1
    with pytest.raises(TableError, match=r"cannot read .* at version 1"):
        handle.find({"user_id": [3]})
