"""Rows of ``data_quality`` that a job adds to those of its run."""

from __future__ import annotations

import threading

import pandas as pd

from fm_spark.tables.contracts import DATA_QUALITY
from fm_spark.tables.store import TableStore

# jobs that run side by side in one session take turns, or Delta would refuse the second commit
_TURNS = threading.Lock()


def write_quality(store: TableStore, rows: pd.DataFrame, step: str, run_id: str) -> None:
    """Replaces what a step of a run has said; the rows of the other steps stay.

    Nothing is written where there is nothing to say and nothing to take back.

    Args:
        rows: from :func:`fm_spark.events.quality.quality_rows`, all of this step and run; may be empty.
        step: the name of a job.
    """
    with _TURNS:
        if rows.empty and not _has_said(store, step, run_id):
            return
        store.write(rows, DATA_QUALITY, run_id, only={"step": step})


def _has_said(store: TableStore, step: str, run_id: str) -> bool:
    own = {"run_id": run_id, "step": step}
    return store.exists(DATA_QUALITY) and store.one(DATA_QUALITY, "step", where=own) is not None
