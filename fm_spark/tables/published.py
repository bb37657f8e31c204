"""What a row of ``publications`` says and which row counts; known here once, for jobs and for readers without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fm_spark.tables.contracts import EVALUATION, FM_MODEL, TRAINING_HISTORY, Contract

# they tell of every model of a run, not only of the one that serves readers
_OF_ALL_MODELS = {EVALUATION.name, FM_MODEL.name, TRAINING_HISTORY.name}


@dataclass(frozen=True)
class Gate:
    """What was asked of a run before it was published: passed when ``value`` >= ``limit``."""

    gate: str
    value: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Publication:
    """One row of ``publications``; the fields are its columns."""

    publication: int
    run_id: str
    model_version: str
    published_at: datetime
    tables: dict[str, int]
    metrics: dict[str, float]
    gates: list[Gate] = field(default_factory=list)
    input_versions: dict[str, int] = field(default_factory=dict)
    rolled_back_from: str | None = None


def publication_of(row: Mapping[str, Any]) -> Publication:
    """The publication that a row says, as Arrow gives it."""
    maps = {name: dict(row[name]) for name in ("tables", "metrics", "input_versions")}
    return Publication(**{**row, **maps, "gates": [Gate(**gate) for gate in row["gates"]]})


def newest(publications: Iterable[Publication], run_id: str = "", at: datetime | None = None) -> Publication | None:
    """The publication that readers follow: the one with the highest number; None when there is none.

    Args:
        run_id: only those of this run; ``""`` = of any.
        at: only those that were there at this time, in UTC; None = all.
    """
    chosen = [
        one for one in publications if run_id in ("", one.run_id) and (at is None or one.published_at <= at)
    ]  # fmt: skip
    return max(chosen, key=lambda one: one.publication, default=None)


def own_rows(publication: Publication, contract: Contract) -> dict[str, str]:
    """Columns and values that tell the rows of a publication in a table that holds several runs; empty for others."""
    if contract.mode != "by_run":
        return {}
    of_model = "model_version" in contract.column_names and contract.name not in _OF_ALL_MODELS
    return {"run_id": publication.run_id, **({"model_version": publication.model_version} if of_model else {})}
