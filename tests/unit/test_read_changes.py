"""The change feed: which lists differ between two publications, against a slow comparison in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from delta_tables import publish, write_lists

import fm_spark.read
from fm_spark.errors import TableError

Lists = dict[object, list[int]]


def slow_changes(before: Lists, after: Lists) -> list[tuple[object, ...]]:
    """user, change, item, rank before, rank after; by user and rank."""
    found: list[tuple[object, ...]] = []
    for user in before.keys() | after.keys():
        was = {item: rank for rank, item in enumerate(before.get(user, []), start=1)}
        now = {item: rank for rank, item in enumerate(after.get(user, []), start=1)}
        found += [(user, "inserted", item, None, now[item]) for item in now.keys() - was.keys()]
        found += [(user, "deleted", item, was[item], None) for item in was.keys() - now.keys()]
        found += [(user, "moved", i, was[i], now[i]) for i in was.keys() & now.keys() if was[i] != now[i]]
    return sorted(found, key=lambda row: (row[0], row[4] or row[3], row[1], row[2]))  # type: ignore[arg-type]


def publish_both(root: Path, before: Lists, after: Lists) -> None:
    publish(root, "r1", 1, {"top_n": write_lists(root, "r1", before)})
    publish(root, "r2", 2, {"top_n": write_lists(root, "r2", after)})


def random_lists(rng: np.random.Generator, users: int, text: bool) -> Lists:
    ids = rng.choice(2 * users, users, replace=False)
    return {(f"u{id_}" if text else int(id_)): rng.choice(8, 5, replace=False).tolist() for id_ in ids}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("rows", [1, 64, 1_000_000])
def test_changes_are_exact_whatever_fits_into_memory_and_however_files_are_laid_out(
    tmp_path: Path, text: bool, rows: int
) -> None:
    rng = np.random.default_rng(3)
    before, after = random_lists(rng, 60, text), random_lists(rng, 70, text)
    after.update({user: before[user] for user in list(before)[:10]})
    publish_both(tmp_path, before, after)
    reader = fm_spark.read.open(tmp_path).change_batches(since="r1", rows=rows)
    found = reader.read_all()
    assert set(found["list_name"].to_pylist()) == {"default"}
    columns = ["user_id", "change", "item_id", "rank_before", "rank_after"]
    assert list(zip(*(found[name].to_pylist() for name in columns), strict=True)) == slow_changes(before, after)


def test_users_whose_lists_stay_are_left_out_and_scores_do_not_count(tmp_path: Path) -> None:
    publish_both(tmp_path, {1: [7, 8], 2: [9]}, {1: [7, 8], 3: [9]})
    changes = fm_spark.read.open(tmp_path).changes(since="r1")
    assert changes.select(["user_id", "change"]).to_pylist() == [
        {"user_id": 2, "change": "deleted"},
        {"user_id": 3, "change": "inserted"},
    ]
    assert fm_spark.read.open(tmp_path).changes(since="r2").num_rows == 0
    assert fm_spark.read.open(tmp_path).changes(since="r2").schema == changes.schema


def test_lists_are_compared_with_the_list_of_their_name(tmp_path: Path) -> None:
    write_lists(tmp_path, "r1", {1: [7]})
    publish(tmp_path, "r1", 1, {"top_n": write_lists(tmp_path, "r1", {1: [8, 9]}, list_name="comedies")})
    write_lists(tmp_path, "r2", {1: [7]})
    publish(tmp_path, "r2", 2, {"top_n": write_lists(tmp_path, "r2", {1: [9, 7]}, list_name="comedies")})
    changes = fm_spark.read.open(tmp_path).changes(since="r1").to_pylist()
    assert {row["list_name"] for row in changes} == {"comedies"}
    assert [(r["change"], r["item_id"], r["rank_before"], r["rank_after"]) for r in changes] == [
        ("deleted", 8, 1, None),
        ("moved", 9, 2, 1),
        ("inserted", 7, None, 2),
    ]


def test_ids_of_another_type_cannot_be_compared(tmp_path: Path) -> None:
    publish(tmp_path, "r1", 1, {"top_n": write_lists(tmp_path / "a", "r1", {1: [7]})})
    publish(tmp_path, "r2", 2, {"top_n": write_lists(tmp_path / "b", "r2", {"1": ["7"]})})
    first = fm_spark.read.open(tmp_path, "r1")
    second = fm_spark.read.open(tmp_path, "r2")
    first.root, second.root = str(tmp_path / "a"), str(tmp_path / "b")
    with pytest.raises(TableError, match=r"user_id of .*top_n is string now and was int64"):
        fm_spark.read.list_changes.changed_rows(first._lists(), second._lists(), 10)
