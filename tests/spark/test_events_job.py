"""The job from files to tables, twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable
from event_inputs import csv_folder, settings, write
from pyspark.sql import SparkSession

from fm_spark.errors import InputError
from fm_spark.events.catalogue import load_catalogue
from fm_spark.tables.contracts import DATA_QUALITY, EVENTS, ITEMS, VOCABULARY
from fm_spark.tables.store import TableStore
from jobs.events import run

RATINGS = [f"{user},{item},{5 if item % 3 else 2}.0,{100 + item}" for user in (1, 2) for item in range(1, 10)] + [
    "1,1,5.0,101",  # exact duplicate
    "2,1,1.0,99",  # an older rating
    "2,77,4.0,105",  # not in the items file; at the same time as item 5
]
MOVIES = [f"{item},Film {item} (19{item:02}),Drama|Comedy" for item in range(1, 12)]


def test_tables_of_a_run_and_of_a_second_one(spark: SparkSession, tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "in", RATINGS, MOVIES)
    config = settings(folder, tables__root=str(tmp_path / "tables"), run__id="first")
    result = run(spark, config)
    totals = result.totals
    assert (totals.rows_read, totals.events, totals.users, totals.items, totals.catalogue) == (21, 19, 2, 10, 12)
    assert (totals.positives, totals.test) == (13, 4)
    assert result.versions == {"items": 1, "events": 1, "data_quality": 1, "vocabulary": 1}

    events = DeltaTable(str(tmp_path / "tables" / "events")).to_pandas().sort_values(["user_id", "position"])
    second = events[events.user_id == 2]
    assert second.item_id.tolist() == [1, 2, 3, 4, 5, 77, 6, 7, 8, 9]
    assert second.split.tolist() == ["train"] * 7 + ["test", "test", "unused"]
    assert events.run_id.unique().tolist() == ["first"]

    quality = DeltaTable(str(tmp_path / "tables" / "data_quality")).to_pandas().set_index("check")
    expected = {
        "unreadable_rows": 0, "out_of_range": 0, "unreadable_items": 0, "duplicate_items": 0, "exact_duplicates": 1,
        "older_ratings": 1, "ties_in_time": 1, "missing_items": 1, "rows_read": 21, "events_kept": 19, "users": 2,
        "items": 10, "catalogue_items": 12, "positives": 13, "test_events": 4, "unused_events": 2,
    }  # fmt: skip
    assert quality["rows"].to_dict() == expected
    assert quality.loc["missing_items", "examples"].tolist() == ["item 77: 1 events"]
    assert quality.loc["ties_in_time", "examples"].tolist() == ["user 2, item 77, 1970-01-01 00:01:45"]

    store = TableStore(spark, str(tmp_path / "tables"))
    catalogue = load_catalogue(store.rows(ITEMS))
    assert catalogue.item_id.tolist() == [*range(1, 12), 77]
    assert catalogue.title[-1] == "77"
    assert catalogue.feature.tolist() == list(range(1, 13))

    again = run(spark, settings(folder, tables__root=str(tmp_path / "tables"), run__id="second"))
    assert again.versions == {"items": 2, "events": 2, "data_quality": 2, "vocabulary": 1}
    both = [store.read(EVENTS, version).drop("run_id").orderBy("user_id", "position").collect() for version in (1, 2)]
    assert both[0] == both[1]


def test_bad_input_leaves_the_tables_as_they_were(spark: SparkSession, tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "in", RATINGS, MOVIES)
    config = settings(folder, tables__root=str(tmp_path / "tables"))
    run(spark, config)
    store = TableStore(spark, str(tmp_path / "tables"))
    before = {table.name: store.version(table) for table in (EVENTS, ITEMS, VOCABULARY, DATA_QUALITY)}
    write(folder / "movies.csv", "movieId,title,genres\n5,Five,New\n")
    write(folder / "ratings.csv", "userId,movieId,rating,timestamp\n1,1,1,1\n2,2,1,1\n3,3,x,1\n")
    for bad_rows in ("fail", "drop"):
        with pytest.raises(InputError):
            run(spark, settings(folder, tables__root=str(tmp_path / "tables"), input__bad_rows=bad_rows))
    assert {table.name: store.version(table) for table in (EVENTS, ITEMS, VOCABULARY, DATA_QUALITY)} == before
