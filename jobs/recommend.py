"""Job ``recommend``: ranks the catalogue for every user with the model that serves readers and writes top_n."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from fm_spark.cli import job_main
from fm_spark.config import Config
from fm_spark.events.quality import quality_rows
from fm_spark.named_lists import named_lists
from fm_spark.parallel import side_by_side
from fm_spark.ranking import top_n
from fm_spark.ranking.blocks import start_workers
from fm_spark.ranking.inputs import RankingInputs, load_inputs
from fm_spark.ranking.list_rules import list_rules
from fm_spark.ranking.profiles import item_tags
from fm_spark.ranking.served import served
from fm_spark.ranking.written import costs, counted, empty_lists
from fm_spark.tables.contracts import TOP_N
from fm_spark.tables.quality import write_quality
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore
from fm_spark.training.loading import item_biases

log = logging.getLogger("fm_spark.recommend")


@dataclass(frozen=True)
class RecommendResult:
    """What was written.

    Attributes:
        users: users with at least one item in the list ``default``.
        rows: rows of each list.
        version: the Delta version of ``top_n``.
    """

    run_id: str
    model_version: str
    users: int
    rows: dict[str, int]
    version: int


def run(spark: SparkSession, config: Config) -> RecommendResult:
    """Writes the lists of ``run.id``, or of the run of the newest model."""
    store = TableStore(spark, config.tables.root)
    found: dict[str, Any] = side_by_side(
        {"inputs": lambda: load_inputs(store, config, PUBLISH), "workers": lambda: start_workers(spark, top_n.__name__)}
    )
    inputs: RankingInputs = found["inputs"]
    run_id, model_version = inputs.model.run_id, inputs.model.model_version
    named = named_lists(config.recommend)
    tags = item_tags(inputs.items, inputs.catalogue) if any(one.tree for one in named) else []
    rules = list_rules(named, inputs.catalogue, tags)
    users = served(store, inputs)
    own_bias = item_biases(store, model_version, inputs.catalogue) if config.recommend.explain else None
    extras = top_n.Extras(own_bias, config.recommend.diversity)
    own = {"run_id": run_id, "model_version": model_version}
    with top_n.top_n_rows(users, inputs.machine, inputs.catalogue, rules, extras) as rows:
        version = store.write_made(rows.with_same(**own), TOP_N, run_id, read=users.read)
    made = counted(store, version, run_id, named, diverse=config.recommend.diversity > 0)
    findings = [*users.findings, *empty_lists(named, rules, made), *costs(made)]
    write_quality(store, quality_rows(findings, "recommend", run_id), "recommend", run_id)
    for finding in findings:
        log.warning("%s", finding.detail)
    for one in made:
        log.info("%s: %s lists, %s rows", one.name, f"{one.users:,}", f"{one.rows:,}")
    return RecommendResult(run_id, model_version, made[0].users, {one.name: one.rows for one in made}, version)


def main() -> None:
    """Entry point of spark-submit."""
    job_main("recommend", run)


if __name__ == "__main__":
    main()
