from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fm_spark.config import load_config
from fm_spark.session import open_session


def test_the_session_is_shared_and_writes_delta_with_microseconds_in_utc(spark: SparkSession, tmp_path: Path) -> None:
    assert open_session("again", load_config()) is spark
    folder = tmp_path / "table"
    spark.sql("select timestamp '2020-01-02 03:04:05.678901' as t").coalesce(1).write.format("delta").save(str(folder))
    (file,) = folder.glob("*.parquet")
    column = pq.read_table(file)["t"]
    assert column.type.unit == "us"
    assert str(column[0].as_py()).startswith("2020-01-02 03:04:05.678901")
