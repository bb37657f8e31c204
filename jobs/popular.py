"""Job ``popular``: writes popular_items, the lists of what is popular overall and per genre."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.events.catalogue import load_catalogue
from fm_spark.ranking.popular import KINDS, count_items, popular_rows
from fm_spark.tables.contracts import EVENTS, ITEMS, POPULAR_ITEMS
from fm_spark.tables.runs import PUBLISH, latest_model, model_run_id
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.popular")


@dataclass(frozen=True)
class PopularResult:
    """The kinds that were written, the number of rows, and the Delta version of ``popular_items``."""

    run_id: str
    model_version: str
    kinds: tuple[str, ...]
    rows: int
    version: int


def run(spark: SparkSession, config: Config) -> PopularResult:
    """Writes the popular items of ``run.id``, or of the run of the newest model, from the events it was trained on."""
    store = TableStore(spark, config.tables.root)
    model = latest_model(store, PUBLISH, model_run_id(store, config))
    events = store.read(EVENTS, model.input_versions.get(EVENTS.name))
    catalogue = load_catalogue(store.rows(ITEMS, model.input_versions.get(ITEMS.name)))
    counts = count_items(events, catalogue, config.popular)
    rows = popular_rows(catalogue, counts, config.popular)
    version = store.write(
        rows.assign(run_id=model.run_id, model_version=model.model_version), POPULAR_ITEMS, model.run_id
    )
    kinds = tuple(kind for kind in KINDS if (rows["kind"] == kind).any())
    if not counts.rated:
        log.info("no weighted_rating: all events have the same value")
    log.info("%s rows of popular items: %s", f"{len(rows):,}", ", ".join(kinds))
    return PopularResult(model.run_id, model.model_version, kinds, len(rows), version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("popular", run)


if __name__ == "__main__":
    main()
