"""Layouts told from names; names of files for messages and for Spark."""

from __future__ import annotations

import pytest

from fm_spark.events.files import Entry
from fm_spark.events.layouts import CSV_RELEASE, DAT_RELEASE, U_RELEASE, Release, is_csv_name, match_release


@pytest.mark.parametrize(
    ("names", "release"),
    [
        (["README.txt", "links.csv", "movies.csv", "ratings.csv", "tags.csv"], CSV_RELEASE),
        (["ratings.csv.gz", "movies.csv"], CSV_RELEASE),
        (["README", "movies.dat", "ratings.dat", "users.dat"], DAT_RELEASE),
        (["u.data", "u.item", "u.genre", "u1.base"], U_RELEASE),
        (["movies.csv", "tags.csv"], None),
        (["my-ratings.csv"], None),
        ([], None),
    ],
)
def test_release_is_told_from_the_ratings(names: list[str], release: Release | None) -> None:
    assert match_release(names) == release


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv.gz", "a b.txt", "a.csv.bz2"])
def test_names_of_text_files(name: str) -> None:
    assert is_csv_name(name)


@pytest.mark.parametrize("name", ["a.parquet", "csv", "a.csv.zip", "a.json"])
def test_names_of_other_files(name: str) -> None:
    assert not is_csv_name(name)


def test_an_entry_is_escaped_for_spark_and_plain_for_people() -> None:
    entry = Entry("file:/data/my [best] {1}*?.csv", "x", False, 1)
    assert entry.pattern == r"file:/data/my \[best\] \{1\}\*\?.csv"
    assert entry.shown == "/data/my [best] {1}*?.csv"
    assert Entry("s3://bucket/a.csv", "a.csv", False, 1).shown == "s3://bucket/a.csv"
