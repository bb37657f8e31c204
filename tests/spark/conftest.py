"""One Spark session for all tests of this folder, opened when the first test asks for it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from taste_run import write_taste_run

from fm_spark.config import Config, load_config
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.files import Folder


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session that jobs get, on two cores, with its own warehouse and few shuffle partitions."""
    warehouse = tmp_path_factory.mktemp("spark-warehouse")
    settings = {
        "spark.driver.memory": "2g",
        # as few tasks as still show what partitions do to a result
        "spark.sql.shuffle.partitions": "3",
        "spark.default.parallelism": "3",
        "spark.sql.warehouse.dir": warehouse.as_uri(),
    }
    # the first compiler alone: short tests never earn back what the optimising one costs (half of the seconds)
    arguments = local_submit_args("local[2]", ["-XX:TieredStopAtLevel=1"], settings)
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(arguments)
    session = open_session("tests", load_config())
    yield session
    session.stop()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The default configuration with its tables in a folder of the test's own."""
    return load_config(overrides=[f"tables.root='{tmp_path / 'tables'}'"])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, no root is local: Spark reads and writes, as on other file systems."""
    return lambda: monkeypatch.setattr(Folder, "local", lambda _: None)


@pytest.fixture(scope="session")
def taste(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained run whose right ranking is known; tests add tables of their own and leave its tables as they are."""
    return write_taste_run(spark, str(tmp_path_factory.mktemp("taste") / "tables"))
