"""The Spark session: what fm_spark needs of it and nothing that belongs to the machine (master, memory, cores)."""

from __future__ import annotations

import os

from pyspark.sql import SparkSession

from fm_spark.config import Config
from fm_spark.environment import check_java, check_not_connect, check_pair, delta_settings
from fm_spark.errors import EnvironmentProblem

_SETTINGS = {
    # Delta's SQL and its tables by path
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # times are UTC, whatever the machine's clock says, and of a type that readers without a JVM know (INT96 is not)
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # toPandas and createDataFrame through Arrow: columns instead of pickled rows
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # batches for Python are bounded by their rows (maxRecordsPerBatch); with a bound in bytes as well Spark 4 measures
    # every column after every row, which takes three times as long as the rows themselves
    "spark.sql.execution.arrow.maxBytesPerBatch": "2147483647",
}


def open_session(app_name: str, config: Config) -> SparkSession:
    """Opens (or returns) the classic Spark session with Delta, named ``fm_spark <app_name>``.

    Master, memory and cores come from spark-submit, ``spark-defaults.conf`` or the environment, never from here.

    Raises:
        EnvironmentProblem: Java or the pyspark and delta-spark pair is wrong, Spark Connect is on, or a session
            without Delta is running already.
    """
    check_not_connect()
    check_pair()
    builder = SparkSession.builder.appName(f"fm_spark {app_name}")
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # No JVM of spark-submit's to join: pyspark starts one, and Delta's jar has to be named before it does.
        check_java()
        for key, value in delta_settings().items():
            builder = builder.config(key, value)
    spark = builder.getOrCreate()
    if "io.delta" not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise EnvironmentProblem(
            "a Spark session without Delta is running in this process, and extensions cannot be added to it; "
            "stop it (spark.stop()) or open it with fm_spark.session.open_session"
        )
    return spark
