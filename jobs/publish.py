"""Publishes a run: one row in ``publications`` that names the table versions that belong together."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.tables.publications import publish
from fm_spark.tables.runs import PUBLISH, latest_model, model_run_id
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.publish")


@dataclass(frozen=True)
class PublishResult:
    """The published run, the number of its publication and the Delta version of ``publications`` that holds it."""

    run_id: str
    model_version: str
    publication: int
    version: int


def run(spark: SparkSession, config: Config) -> PublishResult:
    """Publishes ``run.id``, or the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    run_id = model_run_id(store, config)
    model = latest_model(store, PUBLISH, run_id)
    made = publish(store, run_id, model.model_version, config.publish)
    number = made.row.publication
    log.info("published run %s with model %s as publication %d", run_id, model.model_version, number)
    if not made.latest:
        log.info(
            "run %s was published before and keeps its place; readers follow a later publication until "
            "./spark-submit.sh rollback --to %s", run_id, run_id,
        )  # fmt: skip
    return PublishResult(run_id, model.model_version, number, made.version)


def main() -> None:
    """Entry point of ``./spark-submit.sh publish``."""
    job_main("publish", run)


if __name__ == "__main__":
    main()
