"""Runs every job in one session under one run id, then shows what was made and how good it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.parallel import side_by_side
from fm_spark.report import show_run
from fm_spark.tables.notes import lineage
from fm_spark.tables.runs import started_run_id
from fm_spark.tables.store import TableStore
from jobs import audience, cluster, evaluate, events, popular, publish, recommend, similar, train

log = logging.getLogger("fm_spark.pipeline")

# steps of one line need nothing of each other and run side by side
STEPS: tuple[tuple[tuple[str, Callable[[SparkSession, Config], object]], ...], ...] = (
    (("events", events.run),),
    (("train", train.run),),
    (
        ("evaluate", evaluate.run),
        ("recommend", recommend.run),
        ("cluster", cluster.run),
        ("popular", popular.run),
        ("similar", similar.run),
        ("audience", audience.run),
    ),
    (("publish", publish.run),),
)


@dataclass(frozen=True)
class PipelineResult:
    """The run and the wall-clock seconds of each step, in order; ``all steps`` is less than their sum."""

    run_id: str
    seconds: dict[str, float]


def run(spark: SparkSession, config: Config) -> PipelineResult:
    """Runs the steps in order; the first that fails ends the run, and what was published before stays."""
    begin = time.monotonic()
    store = TableStore(spark, config.tables.root)
    store.check_writable()
    config = replace(config, run=replace(config.run, id=started_run_id(config)))
    log.info("run %s, tables in %s", config.run.id, store.root)
    seconds: dict[str, float] = {}
    for steps in STEPS:
        wanted = {name: step for name, step in steps if name != "audience" or _asks_for_audience(config)}
        seconds |= side_by_side({name: partial(_timed, name, step, spark, config) for name, step in wanted.items()})
    seconds["all steps"] = time.monotonic() - begin
    show_run(store, config.run.id, config.report, seconds)
    return PipelineResult(config.run.id, seconds)


def _asks_for_audience(config: Config) -> bool:
    return bool(config.audience.items or config.audience.segments)


def _timed(name: str, step: Callable[[SparkSession, Config], object], spark: SparkSession, config: Config) -> float:
    log.info("%s ...", name)
    begin = time.monotonic()
    with lineage(name, config):
        step(spark, config)
    seconds = time.monotonic() - begin
    log.info("%s done in %.1f s", name, seconds)
    return seconds


def main() -> None:
    """Entry point of ``./spark-submit.sh pipeline``."""
    job_main("pipeline", run)


if __name__ == "__main__":
    main()
