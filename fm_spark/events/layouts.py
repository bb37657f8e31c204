"""Which layout the input has, told from the names in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pyspark.sql import SparkSession

from fm_spark.config_sections import InputConfig
from fm_spark.errors import InputError
from fm_spark.events.files import Entry, children, find

GenericFormat = Literal["csv", "parquet", "delta"]
KNOWN = (
    "ratings.csv + movies.csv (MovieLens latest, 20M, 25M, 32M), ratings.dat + movies.dat (MovieLens 1M, 10M), "
    "u.data + u.item (MovieLens 100K), a CSV file or folder of CSV files, a folder of Parquet files, a Delta table"
)
_CSV_SUFFIXES = (".csv", ".tsv", ".txt")
_PACKED = (".gz", ".bz2")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")


class Release(NamedTuple):
    """A family of MovieLens releases with the same file layout; "" for a file that none of them has."""

    ratings: str
    items: str
    tags: str
    users: str


CSV_RELEASE = Release("ratings.csv", "movies.csv", "tags.csv", "")
DAT_RELEASE = Release("ratings.dat", "movies.dat", "tags.dat", "users.dat")
U_RELEASE = Release("u.data", "u.item", "", "u.user")
RELEASES = (CSV_RELEASE, DAT_RELEASE, U_RELEASE)


@dataclass(frozen=True)
class MovieLensLayout:
    """The files of a MovieLens release.

    Attributes:
        others: names of the files that lie beside the ratings.
    """

    release: Release
    ratings: Entry
    items: Entry | None
    tags: Entry | None
    genres: Entry | None
    users: Entry | None
    others: frozenset[str]


@dataclass(frozen=True)
class GenericLayout:
    """Events in one of Spark's own formats; ``entries`` are files (csv) or what the reader is given (others)."""

    format: GenericFormat
    entries: tuple[Entry, ...]


def find_layout(spark: SparkSession, config: InputConfig) -> MovieLensLayout | GenericLayout:
    """Looks at ``input.path`` and tells what lies there.

    Raises:
        InputError: nothing is there, the layout is unknown or incomplete, or is not what ``input.format`` says.
    """
    entries = find_entries(spark, config.path, "input.path")
    if config.format in ("auto", "movielens"):
        layout = _movielens(spark, entries, config)
        if layout is not None:
            return layout
        if config.format == "movielens":
            raise _unknown(spark, entries, config, "no MovieLens release")
    wanted = None if config.format == "auto" else config.format
    generic = generic_layout(spark, entries, wanted)
    if generic is None:
        raise _unknown(spark, entries, config, "no layout that fm_spark knows")
    return generic


def find_entries(spark: SparkSession, path: str, key: str) -> list[Entry]:
    """What lies at a configured path.

    Raises:
        InputError: nothing, or an archive.
    """
    entries = find(spark, path)
    if not entries:
        raise InputError(f"{key} = {path!r}: there is no such file or folder; give the folder or file with the data")
    archive = next((e for e in entries if not e.is_folder and e.name.lower().endswith(_ARCHIVES)), None)
    if archive is not None:
        raise InputError(f"{key} = {path!r} is an archive; unpack it and give the folder with its files")
    return entries


def generic_layout(spark: SparkSession, entries: Sequence[Entry], wanted: str | None) -> GenericLayout | None:
    """CSV, Parquet or Delta; ``wanted`` forces one of them; None when the names do not tell."""
    only = entries[0] if len(entries) == 1 and entries[0].is_folder else None
    if only and wanted in (None, "delta") and any(child.name == "_delta_log" for child in children(spark, only)):
        return GenericLayout("delta", (only,))
    if wanted == "delta":
        return None
    files = [f for e in entries for f in (children(spark, e) if e.is_folder else [e]) if f.name[0] not in "._"]
    if wanted == "parquet" or (wanted is None and files and all(_is_parquet(f) for f in files)):
        return GenericLayout("parquet", tuple(entries))
    texts = tuple(f for f in files if not f.is_folder and (wanted == "csv" or is_csv_name(f.name)))
    return GenericLayout("csv", texts) if texts else None


def is_csv_name(name: str) -> bool:
    """Whether a file name says delimited text, packed or not."""
    return _unpacked(name.lower()).endswith(_CSV_SUFFIXES)


def match_release(names: Sequence[str]) -> Release | None:
    """The MovieLens release whose ratings are among the names of a folder."""
    unpacked = {_unpacked(name) for name in names}
    return next((release for release in RELEASES if release.ratings in unpacked), None)


def _movielens(spark: SparkSession, entries: Sequence[Entry], config: InputConfig) -> MovieLensLayout | None:
    if len(entries) != 1:
        return None
    given = entries[0]
    if given.is_folder:
        files = [e for e in children(spark, given) if not e.is_folder]
        release = match_release([f.name for f in files])
        if release is None:
            _refuse_without_ratings(given, files)
            return None
    else:
        release = match_release([given.name])
        if release is None:
            return None
        parent = given.uri.rsplit("/", 1)[0]
        files = [e for e in children(spark, Entry(parent, "", True, 0)) if not e.is_folder]
    layout = _collect(release, files, None if given.is_folder else given)
    if given.is_folder and layout.items is None:
        raise InputError(
            f"input.path = {config.path!r} holds {layout.ratings.name} but no {release.items} (titles and genres); "
            f"add it, or give the path of {layout.ratings.name} itself to go without titles"
        )
    return layout


def _collect(release: Release, files: Sequence[Entry], ratings: Entry | None) -> MovieLensLayout:
    by_name: dict[str, Entry] = {}
    for file in files:
        # the unpacked file wins over its packed twin
        if file.name == _unpacked(file.name) or _unpacked(file.name) not in by_name:
            by_name[_unpacked(file.name)] = file
    return MovieLensLayout(
        release=release,
        ratings=ratings or by_name[release.ratings],
        items=by_name.get(release.items),
        tags=by_name.get(release.tags) if release.tags else None,
        genres=by_name.get("u.genre"),
        users=by_name.get(release.users) if release.users else None,
        others=frozenset(by_name),
    )


def _refuse_without_ratings(folder: Entry, files: Sequence[Entry]) -> None:
    names = {_unpacked(f.name) for f in files}
    for release in RELEASES:
        if release.items in names:
            raise InputError(
                f"{folder.shown} holds {release.items} but no {release.ratings}; "
                "unpack the whole MovieLens release into the folder"
            )


def _unknown(spark: SparkSession, entries: Sequence[Entry], config: InputConfig, what: str) -> InputError:
    held = [child for e in entries for child in (children(spark, e) if e.is_folder else [e])]
    names = [child.name + ("/" if child.is_folder else "") for child in held]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "nothing"
    inner = next(
        (c for c in held[:20] if c.is_folder and match_release([f.name for f in children(spark, c)]) is not None), None
    )
    hint = f"; did you mean {inner.shown}?" if inner is not None else ""
    return InputError(f"input.path = {config.path!r} is {what}: it holds {shown}{hint}; known layouts: {KNOWN}")


def _is_parquet(entry: Entry) -> bool:
    # folders of a partitioned data set are named column=value
    return ("=" in entry.name) if entry.is_folder else entry.name.endswith(".parquet")


def _unpacked(name: str) -> str:
    return next((name[: -len(suffix)] for suffix in _PACKED if name.endswith(suffix)), name)
