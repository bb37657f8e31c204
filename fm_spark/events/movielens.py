"""The official MovieLens layouts: ratings, films and tags of every release."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import InputError
from fm_spark.events.attributes import Attribute, raw_columns
from fm_spark.events.files import Entry, head
from fm_spark.events.layouts import CSV_RELEASE, DAT_RELEASE, MovieLensLayout
from fm_spark.events.parsing import genre_names, release_year, split_genres, whole_number
from fm_spark.events.rows import EventShape
from fm_spark.events.sources import MALFORMED, PROBLEM, Source, csv_source, pattern_source, separated_source

ITEM_ID = "movieId"
RATINGS_COLUMNS = {"user": "userId", "item": ITEM_ID, "value": "rating", "time": "timestamp"}
U_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Names of the genre flags of ``u.item``, in order, for a folder without ``u.genre``."""

# a film's file is item-sized; 64 MiB is a hundred times the largest of them
_WHOLE_FILE = 1 << 26


def ratings_source(spark: SparkSession, layout: MovieLensLayout) -> Source:
    """The ratings, raw columns ``user, item, value, time``.

    Raises:
        InputError: empty file or missing column.
    """
    if layout.release == CSV_RELEASE:
        return csv_source(spark, [layout.ratings], RATINGS_COLUMNS, ",", {})
    separator = "::" if layout.release == DAT_RELEASE else "\t"
    return separated_source(spark, layout.ratings, ["user", "item", "value", "time"], separator)


def ratings_shape(layout: MovieLensLayout, value_range: Sequence[float]) -> EventShape:
    """Whole-number ids, seconds since 1970 UTC, and the release's range of ratings unless one is given."""
    # half stars came with the 10M release; of the two releases with ratings.dat only 1M has users.dat
    half_stars = layout.release == CSV_RELEASE or (layout.release == DAT_RELEASE and "users.dat" not in layout.others)
    least, most = value_range or ((0.5, 5.0) if half_stars else (1.0, 5.0))
    return EventShape(RATINGS_COLUMNS, {"user": True, "item": True}, "seconds", (least, most))


def items_source(spark: SparkSession, layout: MovieLensLayout, attributes: Sequence[Attribute] = ()) -> Source | None:
    """The films, raw columns ``item, title, genres`` (``|``-separated names or flags); None without their file.

    Args:
        attributes: further columns of ``movies.csv``; the other layouts have none.

    Raises:
        InputError: empty file or missing column.
    """
    if layout.items is None:
        return None
    if layout.release == CSV_RELEASE:
        further = raw_columns(attributes)
        columns = {"item": ITEM_ID, "title": "title", "genres": "genres", **further}
        return csv_source(spark, [layout.items], columns, ",", dict.fromkeys(further, "input.item_columns"))
    if attributes:
        raise InputError(
            f"input.item_columns = {[one.name for one in attributes]}: {layout.items.shown} has no named columns; only "
            f"{CSV_RELEASE.items} and files of your own (input.items_path) have, leave it at []"
        )
    if layout.release == DAT_RELEASE:
        pattern = r"^(\d+)::(.*)::(.*?)$"  # a title may hold '::'
    else:
        flags = len(_genre_flags(spark, layout.genres))
        pattern = rf"^(\d+)\|(.*)\|[^|]*\|[^|]*\|[^|]*\|((?:[01]\|){{{flags - 1}}}[01])$"
    return pattern_source(spark, layout.items, ["item", "title", "genres"], pattern, _encoding(spark, layout.items))


def items_shape(spark: SparkSession, layout: MovieLensLayout, raw: DataFrame) -> DataFrame:
    """item_id, title, genres, year of the rows of :func:`items_source`, and ``_problem``."""
    if layout.release in (CSV_RELEASE, DAT_RELEASE):
        genres: Column = split_genres(F.col("genres"))
    else:
        names = F.array(*[F.lit(name) for name in _genre_flags(spark, layout.genres)])
        flags = F.split("genres", r"\|")
        raised = F.zip_with(flags, names, lambda flag, name: F.when(flag == "1", name))
        # the release's own flag for "no genre known"
        genres = genre_names(F.filter(raised, lambda name: name.isNotNull() & (name != "unknown")))
    title = F.col("title")
    item = whole_number("item")
    return raw.withColumns(
        {
            "item_id": item,
            "title": title,
            "genres": genres,
            "year": release_year(title),
            PROBLEM: F.when(F.col(MALFORMED), "wrong number of fields").when(
                item.isNull(), "the id is no whole number"
            ),
        }
    )


def tags_source(spark: SparkSession, layout: MovieLensLayout) -> Source | None:
    """The tags, raw columns ``user, item, tag, time``; None when the release has none.

    Raises:
        InputError: empty file or missing column.
    """
    if layout.tags is None:
        return None
    if layout.release == CSV_RELEASE:
        columns = {"user": "userId", "item": ITEM_ID, "tag": "tag", "time": "timestamp"}
        return csv_source(spark, [layout.tags], columns, ",", {})
    columns_in_order = ["user", "item", "tag", "time"]
    return pattern_source(spark, layout.tags, columns_in_order, r"^(\d+)::(\d+)::(.*)::(\d+)$", "UTF-8")


def _genre_flags(spark: SparkSession, file: Entry | None) -> tuple[str, ...]:
    if file is None:
        return U_GENRES
    lines = head(spark, file).decode("iso-8859-1").splitlines()
    numbered = [line.rsplit("|", 1) for line in lines if "|" in line]
    names = [name for name, place in sorted(numbered, key=lambda pair: int(pair[1]) if pair[1].isdigit() else 0)]
    return tuple(names) or U_GENRES


def _encoding(spark: SparkSession, file: Entry) -> str:
    """UTF-8 (10M) when the whole file is that, else ISO-8859-1 (1M, 100K), in which every byte is a letter."""
    try:
        head(spark, file, _WHOLE_FILE).decode("utf-8")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "UTF-8"
