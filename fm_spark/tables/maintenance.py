"""Maintenance: old runs' rows go, small files are joined, files that no protected version needs are deleted.

Nothing that one of the last publications names is touched, so readers may read while it works.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import functions as F

from fm_spark.config_sections import MaintainConfig
from fm_spark.tables.commits import file_name
from fm_spark.tables.contracts import ALL, CHECKPOINTS, FM_MODEL, FM_PARAMETERS, PUBLICATIONS, Contract
from fm_spark.tables.publications import publications
from fm_spark.tables.published import Publication
from fm_spark.tables.readable import READABLE, described
from fm_spark.tables.retention import HOUR, Retained, retained
from fm_spark.tables.store import TableStore
from fm_spark.tables.upkeep import SMALL_FILE, Upkeep

log = logging.getLogger("fm_spark.maintain")

JOB = "maintain"
_DAY = 24 * HOUR
_LOG_PROPERTY, _DELTA_LOG_DAYS = "delta.logRetentionDuration", 30
_MODELS = (FM_MODEL.name, FM_PARAMETERS.name)


@dataclass(frozen=True)
class TablePlan:
    """What maintenance does to a table.

    Attributes:
        version: its newest version; files, bytes: what lies in its folder, the log not counted.
        runs: runs whose rows go.
        small_files: how many files are joined; 0 when the table is left as it is.
        stays: which versions stay readable and which files go.
    """

    contract: Contract
    version: int
    files: int
    bytes: int
    runs: tuple[str, ...]
    small_files: int
    stays: Retained


@dataclass(frozen=True)
class Protected:
    """What the last publications name.

    Attributes:
        publications: the last ones, oldest first.
        runs: runs whose rows stay: those published, those that wrote lately, the newest ones asked for.
        models: models whose parameters stay, whichever run wrote them.
    """

    publications: tuple[Publication, ...]
    runs: frozenset[str]
    models: frozenset[str]

    def versions(self, contract: Contract) -> set[int]:
        """The versions of a table that are named."""
        named = [one.tables.get(contract.name) for one in self.publications]
        named += [one.input_versions.get(contract.name) for one in self.publications]
        return {version for version in named if version is not None}


def maintain(store: TableStore, settings: MaintainConfig, now: int | None = None) -> list[TablePlan]:
    """Plans, and does it unless ``settings.dry_run``; returns what was planned, by table.

    Args:
        now: milliseconds since 1970 UTC; None = the clock.
    """
    now = round(time.time() * 1000) if now is None else now
    tables = [Upkeep(store, contract, JOB) for contract in (*ALL, CHECKPOINTS) if store.exists(contract)]
    protected = find_protected(tables, settings, now)
    plans = []
    for table in tables:
        plan = plan_table(table, protected, settings, now)
        _warn(plan)
        if not settings.dry_run:
            plan = carry_out(table, plan, protected, settings, now)
        plans.append(plan)
    return plans


def find_protected(tables: Sequence[Upkeep], settings: MaintainConfig, now: int) -> Protected:
    """What must stay: the last ``keep_publications`` publications and the runs that are young or among the newest."""
    store = tables[0].store if tables else None
    last = publications(store)[-settings.keep_publications :] if store else []
    times = _run_times(tables)
    newest = sorted(times, key=lambda run: (times[run], run), reverse=True)[: settings.keep_runs]
    young = [run for run, at in times.items() if at >= now - settings.keep_hours * HOUR]
    return Protected(
        tuple(last),
        frozenset([*(one.run_id for one in last), *newest, *young]),
        frozenset(one.model_version for one in last),
    )


def plan_table(table: Upkeep, protected: Protected, settings: MaintainConfig, now: int) -> TablePlan:
    """What is to be done to a table; changes nothing."""
    contract, version = table.contract, table.store.version(table.contract)
    files = table.files()
    stays = retained(table, files, protected.versions(contract), now, _hours(contract, settings))
    sizes = {file_name(file.uri): file.size for file in files if "/_delta_log/" not in file.uri}
    small = [name for name in table.files_of(version) or () if sizes.get(name, SMALL_FILE) < SMALL_FILE]
    joined = len(small) if len(small) >= settings.small_files and not contract.partitions else 0
    runs = _old_runs(table, protected) if protected.publications else ()
    return TablePlan(contract, version, len(sizes), sum(sizes.values()), runs, joined, stays)


def carry_out(table: Upkeep, plan: TablePlan, protected: Protected, settings: MaintainConfig, now: int) -> TablePlan:
    """Does what was planned, first what makes files superfluous; returns the plan with the files that then went."""
    hours, stays = _hours(table.contract, settings), plan.stays
    if plan.runs:
        condition = F.col("run_id").isin(list(plan.runs))
        if table.contract.name in _MODELS:
            condition &= ~F.col("model_version").isin(sorted(protected.models))
        table.delete(condition)
    if plan.small_files:
        table.compact()
    if plan.runs or plan.small_files:
        at = max(now, round(time.time() * 1000))
        stays = retained(table, table.files(), protected.versions(table.contract), at, hours)
    properties = _log_property(table, stays, settings, now)
    if stays.gone:  # told before a file goes to whoever asks for a version
        properties[READABLE] = described(stays.versions, stays.complete_from)
    table.set_properties(properties)
    table.remove_files(stays.gone, hours)
    return replace(plan, stays=stays)


def _log_property(table: Upkeep, stays: Retained, settings: MaintainConfig, now: int) -> dict[str, str]:
    """How long Delta keeps the log: that of the oldest version that stays lasts well beyond the next maintenance."""
    age = 0 if stays.oldest is None else max(0, now - stays.oldest)
    days = settings.log_days * (1 + -(-age // (settings.log_days * _DAY)))  # in steps, so as not to change every night
    if days == _DELTA_LOG_DAYS and _LOG_PROPERTY not in table.properties():
        return {}
    return {_LOG_PROPERTY: f"interval {days} days"}


def _hours(contract: Contract, settings: MaintainConfig) -> float:
    return min(settings.keep_hours, contract.kept_hours) if contract.kept_hours else settings.keep_hours


def _old_runs(table: Upkeep, protected: Protected) -> tuple[str, ...]:
    if table.contract.mode != "by_run" or table.contract is PUBLICATIONS:
        return ()
    return tuple(run for run in table.run_ids() if run not in protected.runs)


def _run_times(tables: Iterable[Upkeep]) -> dict[str, int]:
    """When each run committed last, milliseconds since 1970 UTC, as far as the logs go back."""
    times: dict[str, int] = {}
    for table in tables:
        for commit in table.store.commits(table.contract):
            if commit.run_id and commit.milliseconds is not None:
                times[commit.run_id] = max(times.get(commit.run_id, 0), commit.milliseconds)
    return times


def _warn(plan: TablePlan) -> None:
    if plan.stays.unreadable:
        versions = ", ".join(map(str, plan.stays.unreadable))
        log.warning("%s: version %s is published, and its log is gone already", plan.contract.name, versions)
