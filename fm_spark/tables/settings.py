"""Settings of the session that hold while something is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession

LARGE_FILES = {"parquet.block.size": str(8 * 2**20), "parquet.dictionary.page.size": str(4 * 2**20)}
"""For tables that are read by key. Parquet's own are made for scans: row groups of 128 MB, which a reader of one key
decodes as a whole, and 1 MB for the distinct values of a column, too little for titles: they would be repeated in every
row."""


@contextmanager
def settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Sets the values and puts back what was there."""
    before = {key: spark.conf.get(key, None) for key in values}
    for key, value in values.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)
