"""Which table versions belong together."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_1
from fm_spark.tables.contracts.contract import MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import Example

PUBLICATIONS = Contract(
    "publications",
    "One row per publication: the table versions of a run that belong together; the highest number is the latest",
    (
        Column(
            "publication",
            "bigint",
            "number of the publication, from 1; readers follow the highest",
            since=2,
            check=FROM_1,
        ),
        RUN_ID,
        MODEL_VERSION,
        Column("published_at", "timestamp", "when the run was first published under this number, UTC"),
        Column("tables", "map<string,bigint>", "Delta version of every table of the run"),
        Column("metrics", "map<string,double>", "test metrics of the run, fm and popularity, as ranker.metric"),
        Column(
            "gates",
            "array<struct<gate:string,value:double,limit:double,passed:boolean>>",
            "what was asked of the run before it was published; passed = value >= limit; empty when nothing was",
            since=2,
        ),
        Column("input_versions", "map<string,bigint>", "Delta version of every table that training read", since=2),
        Column(
            "rolled_back_from",
            "string",
            "of a rollback the run that was the latest until then; null when the run itself was published",
            nullable=True,
            since=2,
        ),
    ),
    key=("publication",),
    mode="by_run",
    example=Example("What is published", ("publication", "published_at", "run_id"), (), "publication"),
)
