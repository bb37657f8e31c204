"""Run ids, and which run and model a job continues."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from fm_spark.config import Config
from fm_spark.errors import ConfigError, TableError
from fm_spark.tables.contracts import EVENTS, FM_MODEL, ITEMS
from fm_spark.tables.store import TableStore

PUBLISH, EVALUATION = "publish", "evaluation"
_SHOWN = 5


@dataclass(frozen=True)
class ModelRecord:
    """One row of ``fm_model``; the fields are its columns."""

    model_version: str
    run_id: str
    created_at: datetime
    purpose: str
    loss: str
    k: int
    w0: float
    epochs: int
    decays: list[float]
    hyperparameters: dict[str, str]
    metrics: dict[str, float]
    input_versions: dict[str, int]
    library_versions: dict[str, str]
    config: str


def new_run_id() -> str:
    """A name for a new run: the time in UTC and four random hex digits, for example ``20261123T172144Z-3f9a``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def started_run_id(config: Config) -> str:
    """The run of the job that begins one (``events``, ``pipeline``): ``run.id``, or a new one."""
    return config.run.id or new_run_id()


def events_run_id(store: TableStore, config: Config) -> str:
    """The run of the jobs that read the events (``train``): ``run.id``, or the one that wrote the events.

    Raises:
        TableError: there is no events table, or it is empty.
    """
    if config.run.id:
        return config.run.id
    run_id = store.one(EVENTS, "run_id")
    if run_id is None:
        raise TableError(f"{store.path(EVENTS)} is empty; run ./spark-submit.sh events first")
    return str(run_id)


def check_one_run(store: TableStore, versions: Mapping[str, int]) -> None:
    """Makes sure that one run of the job events wrote both the events and the items.

    Raises:
        TableError: it broke off between the two.
    """
    events, items = (store.one(contract, "run_id", versions[contract.name]) for contract in (EVENTS, ITEMS))
    if events and items and events != items:
        raise TableError(
            f"the events are of run {events} and the items of run {items}: a run of events broke off between the two; "
            "give it again: ./spark-submit.sh events --run-id RUN"
        )


def model_run_id(store: TableStore, config: Config) -> str:
    """The run of the jobs that read a model: ``run.id``, or that of the newest model that serves readers.

    Raises:
        TableError: there is no model yet.
    """
    return config.run.id or latest_model(store, PUBLISH).run_id


def latest_model(store: TableStore, purpose: str, run_id: str = "") -> ModelRecord:
    """The newest model of a purpose, of one run when ``run_id`` is given.

    Args:
        purpose: ``publish`` (serves readers) or ``evaluation`` (has not seen the test part).

    Raises:
        TableError: there is none.
    """
    of_run = f" of run {run_id}" if run_id else ""
    cure = f"run ./spark-submit.sh train{f' --run-id {run_id}' if run_id else ''} first"
    if not store.exists(FM_MODEL):
        raise TableError(f"no model yet at {store.path(FM_MODEL)}; {cure}")
    found = model_records(store, purpose=purpose, **({"run_id": run_id} if run_id else {}))
    if not found:
        raise TableError(f"no model yet{of_run} with purpose {purpose} at {store.path(FM_MODEL)}; {cure}")
    return found[0]


def model_by_name(store: TableStore, name: str, key: str) -> ModelRecord:
    """The model of that version, or the newest one of that run that serves readers.

    Args:
        key: who names it, for messages.

    Raises:
        ConfigError: there is none; the message names some that there are.
        TableError: there is no model at all.
    """
    there = model_records(store)
    served = [one for one in there if one.purpose == PUBLISH]
    found = [one for one in there if one.model_version == name] or [one for one in served if one.run_id == name]
    if not found:
        shown = ", ".join(f"{one.model_version} (run {one.run_id})" for one in served[:_SHOWN])
        raise ConfigError(
            f"{key} = {name!r} is neither a model_version nor a run id in {store.path(FM_MODEL)}; the newest are "
            f"{shown or 'none'}"
        )
    return found[0]


def model_records(store: TableStore, **where: str) -> list[ModelRecord]:
    """The models whose columns have these values, newest first.

    Raises:
        TableError: there is no table of models.
    """
    rows = store.rows(FM_MODEL, where=where).to_pylist()
    return sorted(map(_record, rows), key=lambda one: (one.created_at, one.model_version), reverse=True)


def _record(row: dict[str, Any]) -> ModelRecord:
    values = {f.name: row[f.name] for f in fields(ModelRecord)}
    maps = ("hyperparameters", "metrics", "input_versions", "library_versions")
    return ModelRecord(**{**values, **{name: dict(values[name]) for name in maps}})
