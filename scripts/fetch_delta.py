"""Starts Spark once with Delta in ``spark.jars.packages``: from then on its jar is in the local cache.

The session is opened as every job's is, so it also proves that Python, Java, Spark and Delta fit together.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile

from fm_spark.config import load_config
from fm_spark.errors import FmSparkError
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment


def main() -> None:
    """Writes and reads a table of ten rows."""
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args("local[1]", ["-XX:TieredStopAtLevel=1"]))
    spark = open_session("setup", load_config())
    with tempfile.TemporaryDirectory() as folder:
        spark.range(10).write.format("delta").save(f"{folder}/table")
        if spark.read.format("delta").load(f"{folder}/table").count() != 10:
            sys.exit("the Delta table that was written cannot be read back")
    spark.stop()


if __name__ == "__main__":
    try:
        main()
    except FmSparkError as error:
        sys.exit(str(error))
