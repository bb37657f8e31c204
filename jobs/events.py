"""Job ``events``: reads the input and writes events, vocabulary, items, data_quality and perhaps users."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.events.derive import Totals, derived
from fm_spark.events.encoding import encode_events, encode_items
from fm_spark.events.items import field_values
from fm_spark.events.quality import quality_rows
from fm_spark.events.read import read_input
from fm_spark.events.vocabulary import extend_vocabulary
from fm_spark.parallel import side_by_side
from fm_spark.tables.contracts import DATA_QUALITY, EVENTS, ITEMS, USERS, VOCABULARY
from fm_spark.tables.runs import started_run_id
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.events")


@dataclass(frozen=True)
class EventsResult:
    """What the job made: its run, its counts, and the Delta version of every table that it wrote."""

    run_id: str
    totals: Totals
    versions: dict[str, int]


def run(spark: SparkSession, config: Config) -> EventsResult:
    """Writes the tables of the events; nothing is written before the whole input has been checked."""
    store = TableStore(spark, config.tables.root)
    store.check_writable()
    run_id = started_run_id(config)
    own = F.lit(run_id).alias("run_id")
    raw = read_input(spark, config.input)
    with derived(raw, config.events, config.train.tags) as made:
        vocabulary = extend_vocabulary(store, field_values(made.items), run_id)
        items = encode_items(made.items, vocabulary).select("*", own).persist()
        events = encode_events(made.events, items).select("*", own)
        quality = quality_rows(made.findings, "events", run_id)
        users = raw.users.select("*", own) if raw.users is not None else None
        versions = side_by_side(
            {
                **({"users": lambda: store.write(users, USERS, run_id)} if users is not None else {}),
                "items": lambda: store.write(items, ITEMS, run_id),
                "events": lambda: store.write(events, EVENTS, run_id),
                "data_quality": lambda: store.write(quality, DATA_QUALITY, run_id),
                "vocabulary": lambda: store.version(VOCABULARY),
            }
        )
        items.unpersist()
        totals = made.totals
    log.info("%s events of %s users and %s items", f"{totals.events:,}", f"{totals.users:,}", f"{totals.items:,}")
    return EventsResult(run_id, totals, versions)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("events", run)


if __name__ == "__main__":
    main()
