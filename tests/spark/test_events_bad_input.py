"""What is wrong with an input is said in one message, with the place and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_inputs import RATINGS_HEADER, csv_folder, settings, write
from pyspark.sql import SparkSession

from fm_spark.errors import InputError
from fm_spark.events.derive import derived
from fm_spark.events.read import read_input


def refused(spark: SparkSession, path: Path | str, **keys: object) -> str:
    config = settings(path, **keys)
    with pytest.raises(InputError) as caught, derived(read_input(spark, config.input), config.events):
        pass
    return str(caught.value)


def test_missing_folder(spark: SparkSession, tmp_path: Path) -> None:
    message = refused(spark, tmp_path / "none")
    assert "none" in message
    assert "no such file or folder" in message


def test_unknown_file_system(spark: SparkSession) -> None:
    assert "cannot read nosuch://bucket/x" in refused(spark, "nosuch://bucket/x")


def test_unknown_layout_names_what_is_there_and_what_is_known(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "song.mp3", "x")
    csv_folder(tmp_path / "ml-small", ["1,1,4,1"])
    message = refused(spark, tmp_path)
    for part in ("song.mp3", "ml-small/", "ratings.dat + movies.dat", "u.data + u.item", "did you mean"):
        assert part in message
    (tmp_path / "nothing").mkdir()
    assert "it holds nothing" in refused(spark, tmp_path / "nothing")
    assert "no MovieLens release" in refused(spark, tmp_path, input__format="movielens")


def test_archive_and_half_a_release(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "ml-1m.zip", "x")
    assert "unpack it" in refused(spark, tmp_path / "ml-1m.zip")
    write(tmp_path / "half" / "movies.csv", "movieId,title,genres\n")
    assert "no ratings.csv" in refused(spark, tmp_path / "half")
    write(tmp_path / "other" / "ratings.csv", f"{RATINGS_HEADER}\n1,1,1,1\n")
    assert "no movies.csv" in refused(spark, tmp_path / "other")


def test_missing_column_is_named_with_the_ones_found(spark: SparkSession, tmp_path: Path) -> None:
    csv_folder(tmp_path, [])
    write(tmp_path / "ratings.csv", "userId,movie,rating,timestamp\n1,1,1,1\n")
    message = refused(spark, tmp_path)
    assert "no column 'movieId'" in message
    assert "userId, movie, rating, timestamp" in message
    assert "for events of your own set input.format to csv" in message
    events = write(tmp_path / "log.csv", "user_id;item_id;time\n1;1;1\n")
    assert "input.user_column" in refused(spark, events)
    assert "no column 'ts'" in refused(spark, events, input__delimiter=";", input__time_column="ts")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        (f"{RATINGS_HEADER}\n", "no rows"),
        (f"{RATINGS_HEADER}\n1,1,4,1\n1,2,4,1\n", "1 user(s)"),
        (f"{RATINGS_HEADER}\n1,1,4,1\n2,1,4,1\n", "1 item(s)"),
        (f"{RATINGS_HEADER}\n1,1,3,1\n2,2,3.5,1\n", "events.positive_threshold"),
        (f"{RATINGS_HEADER}\n1,1,4,1\n2,2,4,1\n", "events.min_positives"),
    ],
)
def test_too_little_to_learn_from(spark: SparkSession, tmp_path: Path, text: str, part: str) -> None:
    csv_folder(tmp_path, [])
    write(tmp_path / "ratings.csv", text)
    assert part in refused(spark, tmp_path)


def test_utf16_and_binary_files(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "user_id,item_id,time\n1,1,1\n", "utf-16")
    assert "save it as UTF-8" in refused(spark, tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(bytes(range(256)))
    assert "not a text file" in refused(spark, tmp_path / "b.csv")


BAD = [
    "1,1,4.0,100", "1,abc,4.0,101", "1,3,NaN,102", "", "2,1,5.5,103", "2,2,4.0,105", "2,3,4.0", "2,4,4.0,106,7",
    ",5,4.0,107", "2,6,inf,108", "2,7,4d,109", "2,8,4.0,99999999999999999999",
]  # fmt: skip


def test_bad_rows_are_counted_and_shown_with_their_lines(spark: SparkSession, tmp_path: Path) -> None:
    message = refused(spark, csv_folder(tmp_path, BAD))
    assert "9 of 11 rows" in message
    assert "input.bad_rows=drop" in message
    shown = [line.strip() for line in message.splitlines()[1:6]]
    assert shown == [
        "ratings.csv line 3: 1,abc,4.0,101 (movieId 'abc' is not a whole number that fits 64 bits)",
        "ratings.csv line 4: 1,3,NaN,102 (rating 'NaN' is not a finite number)",
        "ratings.csv line 6: 2,1,5.5,103 (rating 5.5 is outside 0.5 to 5)",
        "ratings.csv line 8: 2,3,4.0 (wrong number of fields)",
        "ratings.csv line 9: 2,4,4.0,106,7 (wrong number of fields)",
    ]


def test_bad_rows_are_dropped_and_counted_on_request(spark: SparkSession, tmp_path: Path) -> None:
    csv_folder(tmp_path, BAD, ["1,One,A", "x,Two,B"])
    raw = read_input(spark, settings(tmp_path, input__bad_rows="drop").input)
    found = {f.check: f for f in raw.findings}
    assert raw.rows_read == 11
    assert (found["unreadable_rows"].rows, found["out_of_range"].rows, found["unreadable_items"].rows) == (8, 1, 1)
    assert found["unreadable_rows"].action == "dropped"
    assert found["unreadable_rows"].examples[-1].startswith("ratings.csv line 10: ,5,4.0,107 (userId is empty)")
    assert found["out_of_range"].examples == ("ratings.csv line 6: 2,1,5.5,103 (rating 5.5 is outside 0.5 to 5)",)
    assert sorted((r["user_id"], r["item_id"]) for r in raw.events.collect()) == [(1, 1), (2, 2)]


def test_no_usable_row_is_an_error_even_when_dropping(spark: SparkSession, tmp_path: Path) -> None:
    message = refused(spark, csv_folder(tmp_path, ["a,b,c,d"]), input__bad_rows="drop")
    assert "none of the 1 rows can be used" in message
    assert "line 2" in message


def test_one_star_is_the_least_of_the_old_releases(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "u.data", "1\t1\t3\t1\n1\t2\t0.5\t2\n1\t3\tx\t3\n")
    write(tmp_path / "u.item", "")
    message = refused(spark, tmp_path)
    assert "u.data line 2" in message
    assert "rating 0.5 is outside 1 to 5" in message
    assert "rating 'x'" in message


def test_bad_films_are_shown_with_their_lines(spark: SparkSession, tmp_path: Path) -> None:
    message = refused(spark, csv_folder(tmp_path, ["1,1,4,1"], ["1,One,A", "2,Two, parts,B"]))
    assert "movies.csv line 3: 2,Two, parts,B (wrong number of fields)" in message


def test_line_numbers_in_a_file_of_many_blocks(spark: SparkSession, tmp_path: Path) -> None:
    lines = [f"{i}\t{i}\t4\t{i}" for i in range(1, 3001)]
    lines[1] = "x\t1\t4\t1"
    lines[1999] = lines[2998] = "1\ty\t4\t1"
    folder = tmp_path
    write(folder / "u.data", "\n".join(lines) + "\n")
    write(folder / "u.item", "")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "4096")
    try:
        message = refused(spark, folder)
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    assert [line.strip().split(":")[0] for line in message.splitlines()[1:-1]] == [
        "u.data line 2", "u.data line 2000", "u.data line 2999",
    ]  # fmt: skip
