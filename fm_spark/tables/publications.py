"""Publications: one row that names the table versions of a run, so that readers never see a mix of runs.

A run has one row of its own, with the number that it got when it was first published: publishing it again changes what
the row says and not its place. So the retry of an old run, or of one that was rolled back, never becomes the latest
publication by itself; a rollback, which adds a row, is what makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import pandas as pd
from pyspark.sql import functions as F

from fm_spark.errors import TableError
from fm_spark.tables.contracts import (
    ALL,
    EVALUATION,
    FM_MODEL,
    ITEM_CLUSTERS,
    PUBLICATIONS,
    TOP_N,
    Contract,
)
from fm_spark.tables.published import Gate, Publication, newest
from fm_spark.tables.store import WRITTEN_BY, TableStore


@dataclass(frozen=True)
class Published:
    """The row of a publication, whether it is the latest, and the Delta version of ``publications`` that holds it."""

    row: Publication
    latest: bool
    version: int


def publish(store: TableStore, run_id: str, model_version: str) -> Published:
    """Names the versions of the run's tables in one row of ``publications``.

    A table that the lists were made from counts at the version that ``recommend`` read, another that the model was
    trained on at the version that training read; any other at the newest version that the run committed. Nothing is
    written when the run's row says so already.

    Raises:
        TableError: the run has no lists, clusters or metrics yet; the message names the job to run.
    """
    metrics = _metrics(store, run_id)
    found = {
        EVALUATION: bool(metrics),
        TOP_N: _has_rows(store, TOP_N, run_id, model_version),
        ITEM_CLUSTERS: _has_rows(store, ITEM_CLUSTERS, run_id, model_version),
    }
    for contract, there in found.items():
        if not there:
            raise TableError(
                f"run {run_id} cannot be published: {contract.name} has no rows of it and its model {model_version}; "
                f"run ./spark-submit.sh {WRITTEN_BY[contract.name]} --run-id {run_id} first"
            )
    inputs = _input_versions(store, run_id, model_version)
    there_already = publications(store)
    own = newest(there_already, run_id)
    number = own.publication if own else _next_number(there_already)
    made = Publication(
        publication=number,
        run_id=run_id,
        model_version=model_version,
        published_at=own.published_at if own else datetime.now(UTC),
        tables=_versions(store, run_id, inputs),
        metrics=metrics,
        gates=[],
        input_versions=inputs,
        rolled_back_from=own.rolled_back_from if own else None,
    )
    version = store.version(PUBLICATIONS) if made == own else write_publication(store, made)
    return Published(made, all(one.publication <= number for one in there_already), version)


def publications(store: TableStore) -> list[Publication]:
    """Every publication, oldest first; empty when nothing was published yet."""
    if not store.exists(PUBLICATIONS):
        return []
    rows = store.read(PUBLICATIONS).orderBy("publication").collect()
    return [_publication(row.asDict(recursive=True)) for row in rows]


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


def _publication(values: dict[str, object]) -> Publication:
    gates: Sequence[Mapping[str, object]] = values["gates"]  # type: ignore[assignment]
    # Spark returns the machine's local time
    at: datetime = values["published_at"].astimezone(UTC)  # type: ignore[attr-defined]
    return Publication(**{**values, "published_at": at, "gates": [Gate(**gate) for gate in gates]})  # type: ignore[arg-type]


def write_publication(store: TableStore, made: Publication) -> int:
    """Commits the row, the one commit that readers notice; returns the Delta version of ``publications``."""
    frame = pd.DataFrame([asdict(made)], columns=[f.name for f in fields(Publication)])
    return store.write(frame, PUBLICATIONS, made.run_id, only=f"publication = {made.publication}")


def _next_number(there: Sequence[Publication]) -> int:
    return max((one.publication for one in there), default=0) + 1


def _metrics(store: TableStore, run_id: str) -> dict[str, float]:
    """Test metrics as ``ranker.metric``; they belong to the run's model that has not seen the test part."""
    if not store.exists(EVALUATION):
        return {}
    rows = store.read(EVALUATION).where(F.col("run_id") == F.lit(run_id)).collect()
    return {f"{row['ranker']}.{row['metric']}": row["value"] for row in rows}


def _has_rows(store: TableStore, contract: Contract, run_id: str, model_version: str) -> bool:
    own = (F.col("run_id") == F.lit(run_id)) & (F.col("model_version") == F.lit(model_version))
    return store.exists(contract) and not store.read(contract).where(own).isEmpty()


def _input_versions(store: TableStore, run_id: str, model_version: str) -> dict[str, int]:
    model = store.read(FM_MODEL).where(F.col("model_version") == F.lit(model_version)).first()
    if model is None:
        raise TableError(
            f"run {run_id} cannot be published: no model {model_version}; run ./spark-submit.sh train first"
        )
    return dict(model["input_versions"])


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
    of_run = store.read(contract).where(F.col("run_id") == F.lit(run_id))
    return None if of_run.isEmpty() else store.version(contract)
