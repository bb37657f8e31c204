"""Small inputs in every layout, for the tests of the events."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame

from fm_spark.config import Config, load_config

RATINGS_HEADER = "userId,movieId,rating,timestamp"
MOVIES_HEADER = "movieId,title,genres"


def settings(path: Path | str, **keys: object) -> Config:
    """The default configuration with an input path and ``section__key=value``."""
    texts = [f"{name.replace('__', '.', 1)}={_toml(value)}" for name, value in keys.items()]
    return load_config(overrides=[f"input.path={_toml(str(path))}", *texts])


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Writes text with exactly these line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def csv_folder(folder: Path, ratings: list[str], movies: list[str] | None = None) -> Path:
    """A folder of the CSV releases with these rows below the headers."""
    write(folder / "ratings.csv", "\n".join([RATINGS_HEADER, *ratings]) + "\n")
    write(folder / "movies.csv", "\n".join([MOVIES_HEADER, *(movies or [])]) + "\n")
    return folder


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def as_arrow(rows: DataFrame) -> pa.Table:
    """The rows on the driver; ``DataFrame.toArrow`` does the same, from Spark 4 on."""
    return pa.Table.from_batches(rows._collect_as_arrow())
