"""Publications: one row that names the table versions of a run, so that readers never see a mix of runs.

A run has one row of its own, with the number that it got when it was first published: publishing it again changes what
the row says and not its place. So the retry of an old run, or of one that was rolled back, never becomes the latest
publication by itself; a rollback, which adds a row, is what makes it so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

import pandas as pd

from fm_spark.config_sections import PublishConfig
from fm_spark.errors import GateError, TableError
from fm_spark.tables.contracts import (
    ALL,
    EVALUATION,
    ITEM_CLUSTERS,
    PUBLICATIONS,
    TOP_N,
    Contract,
)
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.gates import failures, metric_gates, rows_gate, user_gate
from fm_spark.tables.published import Gate, Publication, newest, publication_of
from fm_spark.tables.runs import model_records
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.publish")


@dataclass(frozen=True)
class Published:
    """The row of a publication, whether it is the latest, and the Delta version of ``publications`` that holds it."""

    row: Publication
    latest: bool
    version: int


def publish(store: TableStore, run_id: str, model_version: str, gates: PublishConfig | None = None) -> Published:
    """Names the versions of the run's tables in one row of ``publications``.

    A table that the lists were made from counts at the version that ``recommend`` read, another that the model was
    trained on at the version that training read; any other at the newest version that the run committed. Nothing is
    written when the run's row says so already.

    Args:
        gates: what the run has to fulfil; None asks for nothing.

    Raises:
        TableError: the run has no lists, clusters or metrics yet; the message names the job to run.
        GateError: the run fails a gate, and ``publish.on_failed_gate`` is ``refuse``.
    """
    metrics = _complete(store, run_id, model_version)
    there = publications(store)
    own = newest(there, run_id)
    number = own.publication if own else _next_number(there)
    inputs = _input_versions(store, run_id, model_version)
    made = Publication(
        publication=number,
        run_id=run_id,
        model_version=model_version,
        published_at=own.published_at if own else datetime.now(UTC),
        tables=_versions(store, run_id, inputs),
        metrics=metrics,
        input_versions=inputs,
        rolled_back_from=own.rolled_back_from if own else None,
    )
    if gates is not None:
        made = replace(made, gates=_passed(store, gates, made, there))
    version = store.version(PUBLICATIONS) if made == own else write_publication(store, made)
    return Published(made, all(one.publication <= number for one in there), version)


def publications(store: TableStore) -> list[Publication]:
    """Every publication, oldest first; empty when nothing was published yet."""
    if not store.exists(PUBLICATIONS):
        return []
    return sorted(map(publication_of, store.rows(PUBLICATIONS).to_pylist()), key=lambda one: one.publication)


def published(store: TableStore, run_id: str = "") -> Publication:
    """The latest publication, or that of a run.

    Raises:
        TableError: there is none.
    """
    store.version(PUBLICATIONS)  # says which job to run when there is no table
    found = newest(publications(store), run_id)
    if found is None:
        of_run = f" of run {run_id}" if run_id else ""
        raise TableError(f"no publication{of_run} at {store.path(PUBLICATIONS)}; run ./spark-submit.sh publish first")
    return found


def write_publication(store: TableStore, made: Publication) -> int:
    """Commits the row, the one commit that readers notice; returns the Delta version of ``publications``.

    Raises:
        LockError: another job has taken the lock of the tables meanwhile.
    """
    store.confirm_lock()
    frame = pd.DataFrame([asdict(made)], columns=[f.name for f in fields(Publication)])
    return store.write(frame, PUBLICATIONS, made.run_id, only={"publication": made.publication})


def _complete(store: TableStore, run_id: str, model_version: str) -> dict[str, float]:
    """The metrics of a run that has everything that readers want.

    Raises:
        TableError: it has not.
    """
    metrics = _metrics(store, run_id)
    found = {contract.name: _has_rows(store, contract, run_id, model_version) for contract in (TOP_N, ITEM_CLUSTERS)}
    for name, there in {EVALUATION.name: bool(metrics), **found}.items():
        if not there:
            raise TableError(
                f"run {run_id} cannot be published: {name} has no rows of it and its model {model_version}; "
                f"run ./spark-submit.sh {WRITTEN_BY[name]} --run-id {run_id} first"
            )
    return metrics


def _passed(store: TableStore, gates: PublishConfig, made: Publication, there: Sequence[Publication]) -> list[Gate]:
    """The results of the gates, when they let the run pass."""
    before = newest(one for one in there if one.run_id != made.run_id and one.publication < made.publication)
    found = [
        *metric_gates(gates, made.metrics, before),
        *user_gate(store, gates, made.run_id, made.tables),
        *rows_gate(store, made.run_id, made.tables),
    ]
    failed = failures(found)
    if failed and gates.on_failed_gate == "refuse":
        latest = newest(there)
        stays = f"readers stay with run {latest.run_id}" if latest else "nothing is published yet"
        raise GateError(
            f"run {made.run_id} is not published, it fails the gates of [publish]: {failed}; {stays}. Look at the "
            "table evaluation and at the input of the run; change a gate with --set publish.KEY=VALUE, or publish it "
            f"all the same: ./spark-submit.sh publish --run-id {made.run_id} --set publish.on_failed_gate=warn"
        )
    if failed:
        log.warning("run %s fails the gates of [publish] and is published all the same: %s", made.run_id, failed)
    return found


def _next_number(there: Sequence[Publication]) -> int:
    return max((one.publication for one in there), default=0) + 1


def _metrics(store: TableStore, run_id: str) -> dict[str, float]:
    """Test metrics as ``ranker.metric``; they belong to the run's model that has not seen the test part."""
    if not store.exists(EVALUATION):
        return {}
    rows = store.rows(EVALUATION, columns=("ranker", "metric", "value"), where={"run_id": run_id}).to_pylist()
    return {f"{row['ranker']}.{row['metric']}": row["value"] for row in rows}


def _has_rows(store: TableStore, contract: Contract, run_id: str, model_version: str) -> bool:
    own = {"run_id": run_id, "model_version": model_version}
    return store.exists(contract) and store.one(contract, "run_id", where=own) is not None


def _input_versions(store: TableStore, run_id: str, model_version: str) -> dict[str, int]:
    found = model_records(store, model_version=model_version)
    if not found:
        raise TableError(
            f"run {run_id} cannot be published: no model {model_version}; run ./spark-submit.sh train first"
        )
    return found[0].input_versions


def _versions(store: TableStore, run_id: str, trained_on: Mapping[str, int]) -> dict[str, int]:
    """The version of every table that has something of the run, by name."""
    versions = dict(trained_on)
    for contract in ALL:
        if contract is not PUBLICATIONS and contract.name not in versions and store.exists(contract):
            version = _version_of(store, contract, run_id)
            if version is not None:
                versions[contract.name] = version
    lists = store.commit(TOP_N, versions[TOP_N.name])
    # the lists may have been made from newer events than the model
    return versions | (lists.read if lists else {})


def _version_of(store: TableStore, contract: Contract, run_id: str) -> int | None:
    own = store.version_of_run(contract, run_id)
    if own is not None:
        return own
    if contract.mode == "append":
        return store.version(contract)  # it did not have to grow for this run
    # either an earlier run wrote the table and this one did not, or Delta has removed the log of the run's commit
    of_run = store.one(contract, "run_id", where={"run_id": run_id})
    return None if of_run is None else store.version(contract)
