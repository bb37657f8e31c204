"""Every official MovieLens layout, with its separators, encodings and odd titles."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from event_inputs import MOVIES_HEADER, RATINGS_HEADER, csv_folder, settings, write
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.events.parsing import release_year
from fm_spark.events.read import RawInput, read_input


def ratings_of(raw: RawInput) -> list[tuple[Any, ...]]:
    rows = raw.events.select("user_id", "item_id", F.unix_timestamp("time").alias("t"), "value", "weight").collect()
    return sorted(tuple(row) for row in rows)


def items_of(raw: RawInput) -> dict[Any, tuple[Any, ...]]:
    assert raw.items is not None
    return {row["item_id"]: (row["title"], row["genres"], row["year"]) for row in raw.items.collect()}


def tags_of(raw: RawInput) -> list[tuple[Any, ...]]:
    assert raw.tags is not None
    seconds = F.unix_seconds("time").alias("t")
    return sorted(tuple(row) for row in raw.tags.select("user_id", "item_id", "tag", seconds).collect())


def test_csv_releases_with_byte_order_mark_crlf_and_quotes(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "my films"
    write(folder / "ratings.csv", f"\ufeff{RATINGS_HEADER}\r\n1,10,0.5,964982703\r\n\r\n2,20,5.0,964982704\r\n")
    films = [
        '10,"American President, The (1995)",Comedy|Drama|Romance',
        '20,"""Great"" Amélie (2001)",(no genres listed)',
    ]
    write(folder / "movies.csv", "\r\n".join([f"\ufeff{MOVIES_HEADER}", *films]))
    write(folder / "tags.csv", "userId,movieId,tag,timestamp\r\n1,10,Funny,1\r\n2,10,funny ,2\r\n2,10,,3\r\n")
    raw = read_input(spark, settings(folder).input)
    assert ratings_of(raw) == [(1, 10, 964982703, 0.5, 1.0), (2, 20, 964982704, 5.0, 1.0)]
    assert items_of(raw) == {
        10: ("American President, The (1995)", ["Comedy", "Drama", "Romance"], 1995),
        20: ('"Great" Amélie (2001)', [], 2001),
    }
    assert tags_of(raw) == [(1, 10, "funny", 1), (2, 10, "funny", 2)]
    assert {f.check: f.rows for f in raw.findings}["unreadable_tags"] == 1
    assert raw.events.select("time").first()["time"].replace(tzinfo=UTC) == datetime(2000, 7, 30, 18, 45, 3, tzinfo=UTC)
    assert raw.events.dtypes == [
        ("user_id", "bigint"), ("item_id", "bigint"), ("time", "timestamp"), ("value", "double"), ("weight", "double"),
    ]  # fmt: skip


def test_packed_csv_and_a_path_to_the_ratings_file(spark: SparkSession, tmp_path: Path) -> None:
    csv_folder(tmp_path, ["1,10,4.0,5"], ["10,Ten (1910),Drama"])
    text = (tmp_path / "ratings.csv").read_bytes()
    (tmp_path / "ratings.csv").unlink()
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(text))
    raw = read_input(spark, settings(tmp_path / "ratings.csv.gz").input)
    assert ratings_of(raw) == [(1, 10, 5, 4.0, 1.0)]
    assert items_of(raw) == {10: ("Ten (1910)", ["Drama"], 1910)}


def test_1m_with_latin_letters_and_colons_in_titles(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "ratings.dat", "1::10::5::978300760\n6040::20::1::978302109\n")
    films = "10::Léon: The Professional::Extended (1994)::Action|Crime\n20::Misérables, Les (1995)::Drama\n"
    write(tmp_path / "movies.dat", films, "iso-8859-1")
    write(tmp_path / "users.dat", "1::F::1::10::48067\n")
    raw = read_input(spark, settings(tmp_path).input)
    assert ratings_of(raw) == [(1, 10, 978300760, 5.0, 1.0), (6040, 20, 978302109, 1.0, 1.0)]
    assert items_of(raw) == {
        10: ("Léon: The Professional::Extended (1994)", ["Action", "Crime"], 1994),
        20: ("Misérables, Les (1995)", ["Drama"], 1995),
    }


def test_10m_in_utf8_with_half_stars_and_tags(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "ratings.dat", "1::10::0.5::838985046\n2::20::4.5::838983525\n")
    write(tmp_path / "movies.dat", "10::Amélie (Fabuleux destin, Le) (2001)::Comedy\n20::Brève (2000)::Drama\n")
    write(tmp_path / "tags.dat", "15::10::so::odd!::1215184630\n15::10::Nice\n")
    raw = read_input(spark, settings(tmp_path).input)
    assert [row[3] for row in ratings_of(raw)] == [0.5, 4.5]
    assert items_of(raw)[10] == ("Amélie (Fabuleux destin, Le) (2001)", ["Comedy"], 2001)
    assert tags_of(raw) == [(15, 10, "so::odd!", 1215184630)]


def test_100k_with_tabs_bars_and_genre_flags(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "u.data", "196\t242\t3\t881250949\n186\t302\t1\t891717742\n")

    def film(item: int, title: str, raised: set[int]) -> str:
        flags = "|".join("1" if i in raised else "0" for i in range(19))
        return f"{item}|{title}|01-Jan-1997||http://x.com/exact?{item}|{flags}\n"

    films = film(242, "Kolya (1996)", {5}) + film(302, "Misérables, Les (1995)", {8, 16}) + film(303, "unknown", {0})
    write(tmp_path / "u.item", films, "iso-8859-1")
    raw = read_input(spark, settings(tmp_path).input)
    assert ratings_of(raw) == [(186, 302, 891717742, 1.0, 1.0), (196, 242, 881250949, 3.0, 1.0)]
    assert items_of(raw) == {
        242: ("Kolya (1996)", ["Comedy"], 1996),
        302: ("Misérables, Les (1995)", ["Drama", "Thriller"], 1995),
        303: ("unknown", [], None),
    }
    write(tmp_path / "u.genre", "".join(f"G{i}|{i}\n" for i in range(19)) + "\n")
    assert items_of(read_input(spark, settings(tmp_path).input))[302][1] == ["G16", "G8"]


def test_bundled_ratings(spark: SparkSession) -> None:
    raw = read_input(spark, settings(Path(__file__).parents[2] / "data" / "ml-latest-small").input)
    assert raw.rows_read == 100_836
    assert {f.check: f.rows for f in raw.findings} == {
        "unreadable_rows": 0, "out_of_range": 0, "unreadable_items": 0, "duplicate_items": 0, "unreadable_tags": 0,
    }  # fmt: skip
    assert items_of(raw)[1] == (
        "Toy Story (1995)", ["Adventure", "Animation", "Children", "Comedy", "Fantasy"], 1995,
    )  # fmt: skip


def test_release_years(spark: SparkSession) -> None:
    expected = {
        "Toy Story (1995)": 1995, "Toy Story (1995) ": 1995, "Fawlty Towers (1975-1979)": 1975, "Dark (2017-)": 2017,
        "Twin (Peaks) (1990\u20131991)": 1990, "2001 (1968)": 1968, "(500) Days (2009)": 2009, "Babylon 5": None,
        "Old (1920) (1931)": 1931, "Short (95)": None, "Long (19955)": None, "": None,
    }  # fmt: skip
    rows = spark.createDataFrame([(title,) for title in expected], "title string")
    found = rows.select("title", release_year(F.col("title")).alias("year")).collect()
    assert {row["title"]: row["year"] for row in found} == expected
