"""Histories straight from Parquet files: every range of users whole, in order, once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_spark.errors import TableError
from fm_spark.events.history_files import row_groups, rows_of_range, rows_of_ranges, user_ranges

Rows = list[tuple[Any, int]]


def log(counts: list[int], text: bool = False) -> Rows:
    """(user, position) of users with so many events, in order."""
    return [(f"u{u:03d}" if text else 10 * u, p) for u, n in enumerate(counts) for p in range(n)]


def written(folder: Path, rows: Rows, cuts: list[int], group_rows: int) -> list[str]:
    """The rows in files that end at the cuts, given in another order than that of the rows."""
    files = []
    bounds = [0, *cuts, len(rows)]
    for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
        part = rows[begin:end]
        user = pa.array([u for u, _ in part], pa.string() if rows and isinstance(rows[0][0], str) else pa.int64())
        position = pa.array([p for _, p in part], pa.int32())
        table = pa.table({"user_id": user, "position": position, "label": np.arange(begin, end, dtype=float)})
        files.append(str(folder / f"{7 - number}.parquet"))
        pq.write_table(table, files[-1], row_group_size=group_rows)
    return files[::-1]


@given(data=st.data(), counts=st.lists(st.integers(1, 9), min_size=1, max_size=12), n=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("text", [False, True])
def test_ranges_hold_every_user_once_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, text: bool, data: st.DataObject, counts: list[int], n: int
) -> None:
    rows = log(counts, text)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=3)) - {len(rows)})
    files = written(tmp_path_factory.mktemp("log"), rows, cuts, data.draw(st.integers(1, 7)))
    groups = row_groups(files)
    assert groups is not None
    assert sum(group.rows for group in groups) == len(rows)
    ranges = user_ranges(groups, n)
    assert 1 <= len(ranges) <= n
    found: list[tuple[Any, int, float]] = []
    for users in ranges:
        of_range = [row for batch in rows_of_range(groups, users, ["label"]) for row in batch.to_pylist()]
        found += [(row["user_id"], row["position"], row["label"]) for row in of_range]
        of_users = {row["user_id"] for row in of_range}
        assert len(of_range) == sum(user in of_users for user, _ in rows)
    assert found == [(user, position, float(place)) for place, (user, position) in enumerate(rows)]


def test_ranges_have_about_equally_many_rows(tmp_path: Path) -> None:
    rows = log([20] * 50)
    groups = row_groups(written(tmp_path, rows, [130, 700], 90))
    assert groups is not None
    sizes = [sum(len(b) for b in rows_of_range(groups, users, [])) for users in user_ranges(groups, 4)]
    assert sizes == [240, 260, 240, 260]  # a user is not cut


def test_a_task_reads_the_ranges_that_it_is_asked_for(tmp_path: Path) -> None:
    groups = row_groups(written(tmp_path, log([3] * 10), [], 4))
    assert groups is not None
    ranges = user_ranges(groups, 3)
    asked = [pa.RecordBatch.from_pydict({"id": [2]}), pa.RecordBatch.from_pydict({"id": [0]})]
    users = [user for batch in rows_of_ranges(groups, ranges, [], asked) for user in batch["user_id"].to_pylist()]
    assert set(users) == {0, 10, 20, 60, 70, 80, 90}
    assert users[0] == ranges[2].begin


def test_files_whose_users_overlap_are_not_taken(tmp_path: Path) -> None:
    rows = log([3] * 4)
    first, second = written(tmp_path, rows[:6] + rows[3:], [6], 100)
    assert row_groups([first]) is not None
    assert row_groups([first, second]) is not None  # they meet in a user
    (tmp_path / "other").mkdir()
    overlapping = written(tmp_path / "other", rows, [], 100)
    assert row_groups([first, second, *overlapping]) is None


def test_no_rows_make_one_empty_range(tmp_path: Path) -> None:
    groups = row_groups(written(tmp_path, [], [], 5))
    assert groups == []
    (users,) = user_ranges(groups, 3)
    assert list(rows_of_range(groups, users, [])) == []


def test_rows_out_of_order_are_refused_with_the_file_and_the_cure(tmp_path: Path) -> None:
    rows = log([3, 3])
    swapped = [rows[1], rows[0], *rows[2:]]
    groups = row_groups(written(tmp_path, swapped, [], 100))
    assert groups is not None
    with pytest.raises(TableError, match=r"7.parquet are not in the order .* run ./spark-submit.sh events again"):
        list(rows_of_range(groups, user_ranges(groups, 1)[0], []))
    twice = written(tmp_path, [rows[0], rows[0]], [1], 100)
    meeting = row_groups(twice)
    assert meeting is not None
    with pytest.raises(TableError, match="not in the order"):
        list(rows_of_range(meeting, user_ranges(meeting, 1)[0], []))
