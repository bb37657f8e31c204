"""What the jobs ``score`` and ``rerank`` share: read the pairs, answer them, write them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.config import Config
from fm_spark.config_checks import check_asked
from fm_spark.core.knn_classes import MOST_CLASSES
from fm_spark.errors import ConfigError, InputError, TableError
from fm_spark.events.sources import PLACE
from fm_spark.ranking.pair_answers import Answering, prepare, with_classes
from fm_spark.ranking.pair_input import PAYLOAD, USER, Pairs, read_pairs
from fm_spark.ranking.pairs import RANK, SOURCE, scored_pairs
from fm_spark.ranking.serving import load_serving, served_model
from fm_spark.tables.contracts import ALL, CHECKPOINTS, EVENTS
from fm_spark.tables.files import Folder
from fm_spark.tables.output import Output, check_output
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.score")


@dataclass(frozen=True)
class PairResult:
    """What was written: rows by source; as many in all as the input has."""

    run_id: str
    model_version: str
    output: str
    rows: int
    sources: dict[str, int]


def answer_pairs(spark: SparkSession, config: Config, job: Literal["score", "rerank"]) -> PairResult:
    """Runs one of the jobs.

    Raises:
        ConfigError, InputError, TableError: see :func:`~fm_spark.config_checks.check_asked`,
            :func:`~fm_spark.ranking.pair_input.read_pairs`,
            :func:`~fm_spark.tables.output.check_output`, :func:`~fm_spark.ranking.serving.served_model` and
            :func:`~fm_spark.ranking.serving.load_serving`. Nothing is written then.
    """
    check_asked(job, config)
    paths = config.score if job == "score" else config.rerank
    store = TableStore(spark, config.tables.root)
    model = served_model(store, config)
    schema = store.read(EVENTS, model.input_versions.get(EVENTS.name)).schema
    types = {name: schema[name].dataType for name in ("user_id", "item_id")}
    pairs = read_pairs(spark, config, f"{job}.input", paths.input, types)
    tables = [Folder(spark, store.path(contract)).uri() for contract in (*ALL, CHECKPOINTS)]
    uris = [*(entry.uri for entry in pairs.entries), *tables]
    output = check_output(spark, f"{job}.output", paths.output, config.input.delimiter, uris)
    serving = load_serving(store, model)
    answering = prepare(serving.machine, serving.catalogue, serving.learnt)
    if job == "score" and config.score.answer == "class":
        answering = _with_classes(answering, serving.events, config)
    own = [F.lit(model.run_id).alias("run_id"), F.lit(model.model_version).alias("model_version")]
    with scored_pairs(serving, pairs, answering) as scored:
        added = [name for name in scored.columns if name != RANK]
        if job == "rerank":
            added = [RANK, *added]
        names = kept_names(pairs.columns, [*added, "run_id", "model_version"], f"{job}.input")
        payload = [F.col(f"{PAYLOAD}.c{i}").alias(name) for i, name in enumerate(names)]
        rows = scored.rows.select(F.struct(*_order(job)).alias(PLACE), *payload, *added, *own)
        sources = _write(output, rows, pairs)
    counts = ", ".join(f"{n:,} {source}" for source, n in sources.items())
    log.info("%s rows (%s) by model %s in %s", f"{pairs.count:,}", counts or "none", model.model_version, output.shown)
    return PairResult(model.run_id, model.model_version, output.shown, pairs.count, sources)


def _order(job: str) -> list[Column]:
    """What rows are sorted by: the place in the input; for ``rerank`` user and rank before it, bad ids last."""
    if job == "score":
        return [F.col(PLACE)]
    return [F.col(RANK).isNull().alias("bad"), F.col(USER), F.col(RANK), F.col(PLACE)]


def kept_names(columns: Sequence[str], added: Sequence[str], key: str) -> list[str]:
    """The input's columns as they are called in the output: ``input_<name>`` where the name is one of ours.

    Raises:
        InputError: two columns would have the same name (which Spark reads without regard to case).
    """
    ours = {name.lower() for name in added}
    names = [f"input_{name}" if name.lower() in ours else name for name in columns]
    for old, new in zip(columns, names, strict=True):
        if old != new:
            log.warning("column %s of %s is called %s in the output, which has a %s of its own", old, key, new, old)
    lower = [name.lower() for name in names]
    twice = next((name for name in names if lower.count(name.lower()) > 1), None)
    if twice is not None:
        raise InputError(f"{key}: two columns would be called {twice!r} in the output; rename one of them")
    return names


def _write(output: Output, rows: DataFrame, pairs: Pairs) -> dict[str, int]:
    """Writes the rows once it is sure that none is missing; returns how many there are by source."""
    output.check_columns(rows)
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        sources = {row[SOURCE]: row["count"] for row in rows.groupBy(SOURCE).count().orderBy(SOURCE).collect()}
        if sum(sources.values()) != pairs.count:
            raise TableError(
                f"{pairs.name} had {pairs.count:,} rows and has {sum(sources.values()):,} now: it was changed while it "
                "was read; nothing was written, run the job again"
            )
        output.write(rows, [PLACE])
    finally:
        rows.unpersist()
    return sources


def _with_classes(answering: Answering, events: DataFrame, config: Config) -> Answering:
    """Adds the classes: the different values of the log; the usual one is the most frequent, the smaller of equals.

    Raises:
        ConfigError: the log has no ratings, or too many different values.
    """
    rows = events.groupBy("value").count().limit(MOST_CLASSES + 1).collect()
    if not 2 <= len(rows) <= MOST_CLASSES:
        what = f"more than {MOST_CLASSES}" if len(rows) > MOST_CLASSES else f"{len(rows)}"
        raise ConfigError(
            f"--as class needs events with ratings, 2 to {MOST_CLASSES} different values; these have {what} "
            "(input.value_column names the ratings)"
        )
    usual = min(rows, key=lambda row: (-row["count"], row["value"]))["value"]
    return with_classes(answering, np.sort([row["value"] for row in rows]), usual, config.score.neighbours)
