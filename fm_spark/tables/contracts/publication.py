"""Which table versions belong together."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import MODEL_VERSION, RUN_ID, Column, Contract

PUBLICATIONS = Contract(
    "publications",
    "One row per published run: the table versions that belong together",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("published_at", "timestamp", "when, UTC"),
        Column("tables", "map<string,bigint>", "Delta version of every table of the run"),
        Column("metrics", "map<string,double>", "test metrics of the run, fm and popularity, as ranker.metric"),
    ),
    key=("run_id",),
    mode="by_run",
)
