"""Who may write."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import Column, Contract

LOCKS = Contract(
    "locks",
    "Which job may write the tables of this root; one row, free when its lease has ended; not for readers",
    (
        Column("lock", "string", "what is locked: root"),
        Column("run_id", "string", "the run of the job; empty when the job takes that of the tables it reads"),
        Column("job", "string", "the job that holds the lock"),
        Column("host", "string", "the machine that its driver runs on"),
        Column("pid", "bigint", "the driver's process"),
        Column("process", "string", "tells this very process from any other; empty where that cannot be known"),
        Column("token", "string", "random, a new one for each time the lock is taken"),
        Column("acquired_at", "timestamp", "when the lock was taken, UTC"),
        Column("expires_at", "timestamp", "when the lease ends unless it is renewed, UTC; the past when released"),
    ),
    key=("lock",),
    mode="replace",
    kept_hours=1,
)
