"""Job ``similar``: finds the nearest items of every item and writes similar_items and similar_quality."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.parallel import side_by_side
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.similar import around_items, similar_rows
from fm_spark.ranking.similar_quality import genre_shares, share_rows
from fm_spark.tables.contracts import SIMILAR_ITEMS, SIMILAR_QUALITY
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.similar")


@dataclass(frozen=True)
class SimilarResult:
    """How many items can be neighbours, and the Delta version of each table written."""

    run_id: str
    model_version: str
    candidates: int
    versions: dict[str, int]


def run(spark: SparkSession, config: Config) -> SimilarResult:
    """Writes the neighbours of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    inputs = load_inputs(store, config, PUBLISH)
    run_id, model_version, catalogue = inputs.model.run_id, inputs.model.model_version, inputs.catalogue
    around = around_items(inputs.machine.item_factors, catalogue, config.similar)
    own = {"run_id": run_id, "model_version": model_version}

    def quality() -> int:
        shares = genre_shares(inputs.events, around, catalogue, config.similar.n, config.similar.seed)
        return store.write(share_rows(shares).assign(**own), SIMILAR_QUALITY, run_id)

    with similar_rows(spark, around, catalogue, config.similar) as rows:
        tasks = {
            SIMILAR_ITEMS.name: lambda: store.write_made(rows.with_same(**own), SIMILAR_ITEMS, run_id),
            SIMILAR_QUALITY.name: quality,
        }
        versions = side_by_side(tasks)
    log.info("neighbours of %s items, %s can be one", f"{catalogue.n_items:,}", f"{len(around.members):,}")
    return SimilarResult(run_id, model_version, len(around.members), versions)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("similar", run)


if __name__ == "__main__":
    main()
