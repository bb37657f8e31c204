"""Job ``audience``: finds the best users for asked-for items and segments and writes item_audience."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.events.quality import quality_rows
from fm_spark.ranking.audience import asked_for, audience_rows, empty_audiences
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.profiles import item_tags
from fm_spark.tables.contracts import ITEM_AUDIENCE
from fm_spark.tables.quality import write_quality
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.audience")


@dataclass(frozen=True)
class AudienceResult:
    """How many users each item and segment has, by (kind, target), and the Delta version of ``item_audience``."""

    run_id: str
    model_version: str
    users: dict[tuple[str, str], int]
    version: int


def run(spark: SparkSession, config: Config) -> AudienceResult:
    """Writes the audiences of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, PUBLISH)
    run_id, model_version, catalogue = inputs.model.run_id, inputs.model.model_version, inputs.catalogue
    tags = item_tags(inputs.items, catalogue) if config.audience.segments else []
    asked = asked_for(config.audience, catalogue, tags)
    own = [F.lit(run_id).alias("run_id"), F.lit(model_version).alias("model_version")]
    with audience_rows(inputs.events, inputs.machine, catalogue, asked, config.audience) as rows:
        version = store.write(rows.select("*", *own), ITEM_AUDIENCE, run_id)
    written = store.read(ITEM_AUDIENCE, version).where(F.col("run_id") == F.lit(run_id))
    counts = {tuple(row)[:2]: row["count"] for row in written.groupBy("kind", "target").count().collect()}
    users = {(one.kind, one.target): counts.get((one.kind, one.target), 0) for one in asked}
    findings = empty_audiences(asked, users)
    write_quality(store, quality_rows(findings, "audience", run_id), "audience", run_id)
    for finding in findings:
        log.warning("%s", finding.detail)
    log.info("%s items and segments, %s rows", f"{len(asked):,}", f"{sum(users.values()):,}")
    return AudienceResult(run_id, model_version, users, version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("audience", run)


if __name__ == "__main__":
    main()
