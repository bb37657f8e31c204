"""Events of any origin: CSV, Parquet and Delta, with ids, times, values and items as the configuration says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from event_inputs import settings, write
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import InputError
from fm_spark.events.read import RawInput, read_input

COLUMNS = {"input__user_column": "who", "input__item_column": "what", "input__time_column": "at"}


def events_of(raw: RawInput) -> list[tuple[Any, ...]]:
    seconds = (F.unix_micros("time") / 1e6).alias("t")
    return sorted(tuple(row) for row in raw.events.select("user_id", "item_id", seconds, "value", "weight").collect())


def test_csv_in_a_folder_with_a_blank_in_its_name(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "my events"
    write(folder / "part 1.csv", 'note,who,what,at,n,w\n"a, ""b""",1,x1,1.5,3,2\n')
    write(folder / "part 2.csv", "note,who,what,at,n,w\n,20,007,2,0.5,0\n")
    write(folder / "empty.csv", "")
    write(folder / "_SUCCESS", "")
    keys = COLUMNS | {"input__value_column": "n", "input__weight_column": "w"}
    raw = read_input(spark, settings(folder, **keys).input)
    assert events_of(raw) == [(1, "x1", 1.5, 3.0, 2.0), (20, "007", 2.0, 0.5, 0.0)]
    assert raw.rated
    assert raw.items is None
    globbed = read_input(spark, settings(f"{folder.as_uri().replace('%20', ' ')}/part*.csv", **keys).input)
    assert events_of(globbed) == events_of(raw)


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["1", "-20", "9223372036854775807"], "bigint"),
        (["1", "", "0"], "bigint"),
        (["1", "02"], "string"),
        (["1", "+2"], "string"),
        (["1", " 2"], "string"),
        (["1", "9223372036854775808"], "string"),
        (["1", "2.0"], "string"),
    ],
)
def test_ids_are_integers_when_all_are_written_as_such(
    spark: SparkSession, tmp_path: Path, ids: list[str], kind: str
) -> None:
    write(tmp_path / "a.csv", "\n".join(["user_id,item_id,time", *(f'7,"{i}",1' for i in ids)]))
    raw = read_input(spark, settings(tmp_path / "a.csv", input__bad_rows="drop").input)
    assert dict(raw.events.dtypes)["item_id"] == kind
    kept = {str(row["item_id"]) for row in raw.events.collect()}
    assert kept == {i for i in ids if i}
    assert raw.findings[0].rows == ids.count("")


def test_id_type_can_be_forced(spark: SparkSession, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "user_id,item_id,time\n7,8,1\n7,9x,1\n")
    texts = read_input(spark, settings(file, input__id_type="string").input)
    assert [row[:2] for row in events_of(texts)] == [("7", "8"), ("7", "9x")]
    with pytest.raises(InputError, match=r"line 3: 7,9x,1 \(item_id '9x' is not a whole number"):
        read_input(spark, settings(file, input__id_type="integer").input)


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_tables_keep_their_types(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    rows = [("1", 5, datetime(2020, 1, 1, tzinfo=UTC), 4), ("2", 6, datetime(2020, 1, 2, tzinfo=UTC), None)]
    table = spark.createDataFrame(rows, "who string, what int, at timestamp, `n.o` int")
    table.write.format(kind).save(str(tmp_path / "t"))
    listed = [(5, "Five", ["b", "a", ""], 1999), (6, None, None, None)]
    items = spark.createDataFrame(listed, "k int, name string, g array<string>, y int")
    items.write.format(kind).save(str(tmp_path / "i"))
    keys = COLUMNS | {
        "input__value_column": "n.o", "input__items_path": str(tmp_path / "i"), "input__items_id_column": "k",
        "input__items_title_column": "name", "input__items_genres_column": "g", "input__items_year_column": "y",
    }  # fmt: skip
    with pytest.raises(InputError, match=r'"n.o"|n.o is empty'):
        read_input(spark, settings(tmp_path / "t", **keys).input)
    raw = read_input(spark, settings(tmp_path / "t", **keys, input__bad_rows="drop").input)
    assert events_of(raw) == [("1", 5, 1577836800.0, 4.0, 1.0)]
    assert raw.items is not None
    found = sorted(tuple(row) for row in raw.items.collect())
    assert found == [(5, "Five", ["a", "b"], 1999, {}), (6, None, [], None, {})]


def test_csv_items_without_events_and_with_bars(spark: SparkSession, tmp_path: Path) -> None:
    events = write(tmp_path / "events.csv", "user_id,item_id,time\nu,a,1\n")
    items = write(tmp_path / "items.csv", 'item_id,title,kind,year\na,"A, first",x|y,2001\nb,,,\nb,Bee,,\n')
    keys = {"input__items_path": str(items), "input__items_genres_column": "kind", "input__items_year_column": "year"}
    raw = read_input(spark, settings(events, **keys).input)
    assert not raw.rated
    assert raw.items is not None
    found = {row["item_id"]: tuple(row)[1:] for row in raw.items.collect()}
    assert found == {"a": ("A, first", ["x", "y"], 2001, {}), "b": (None, [], None, {})}
    assert {f.check: f.rows for f in raw.findings}["duplicate_items"] == 1


@pytest.mark.parametrize(
    ("unit", "text", "seconds"),
    [
        ("seconds", "1577836800", 1577836800.0),
        ("seconds", "1577836800.25", 1577836800.25),
        ("milliseconds", "1577836800250", 1577836800.25),
        ("timestamp", "2020-01-01T00:00:00", 1577836800.0),
        ("timestamp", "2020-01-01 01:00:00+01:00", 1577836800.0),
        ("seconds", "1577836800000", None),
        ("seconds", "2020-01-01", None),
        ("timestamp", "01:00:00", None),
        ("timestamp", "2020", None),
        ("timestamp", "2020-13-01", None),
    ],
)
def test_times(spark: SparkSession, tmp_path: Path, unit: str, text: str, seconds: float | None) -> None:
    file = write(tmp_path / "a.csv", f"user_id,item_id,time\n1,1,{text}\n")
    config = settings(file, input__time_unit=unit).input
    if seconds is None:
        with pytest.raises(InputError, match=r"line 2: .* is not a time"):
            read_input(spark, config)
    else:
        assert [row[2] for row in events_of(read_input(spark, config))] == [seconds]


def test_values_in_a_range_and_weights(spark: SparkSession, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "user_id,item_id,time,v,w\n1,1,1,11,1\n1,2,1,10,-1\n1,3,1,0,0.5\n")
    keys = {"input__value_column": "v", "input__weight_column": "w", "input__value_range": [0, 10]}
    with pytest.raises(InputError) as caught:
        read_input(spark, settings(file, **keys).input)
    assert "v 11.0 is outside 0 to 10" in str(caught.value)
    assert "w is negative" in str(caught.value)


def test_types_that_cannot_serve(spark: SparkSession, tmp_path: Path) -> None:
    table = spark.createDataFrame([(1.5, 1, "x")], "user_id double, item_id int, time string")
    table.write.parquet(str(tmp_path / "t"))
    with pytest.raises(InputError, match="ids are whole numbers or text"):
        read_input(spark, settings(tmp_path / "t").input)
    table.select(F.lit(1).alias("user_id"), "item_id", F.lit(True).alias("time")).write.parquet(str(tmp_path / "u"))
    with pytest.raises(InputError, match=r"input\.time_column"):
        read_input(spark, settings(tmp_path / "u").input)
    with pytest.raises(InputError, match=r"no column 'v'.*input\.value_column"):
        read_input(spark, settings(tmp_path / "t", input__value_column="v").input)


def test_files_with_other_columns_do_not_mix(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "user_id,item_id,time\n1,1,1\n")
    write(tmp_path / "b.csv", "item_id,user_id,time\n1,1,1\n")
    with pytest.raises(InputError, match=r"b\.csv has the columns item_id, user_id, time, a\.csv has"):
        read_input(spark, settings(tmp_path).input)
