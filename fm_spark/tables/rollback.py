"""Publishes an earlier run again, after a look whether everything that it names can still be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.failures import explain
from fm_spark.parallel import side_by_side
from fm_spark.tables.contracts import ALL, PUBLICATIONS, Contract
from fm_spark.tables.publications import Published, publications, write_publication
from fm_spark.tables.published import Publication, newest
from fm_spark.tables.store import TableStore


def roll_back(store: TableStore, run_id: str) -> Published:
    """Adds a row to ``publications`` that names the tables of the earlier run; no other table changes.

    Nothing is written when the run is the latest publication.

    Raises:
        TableError: the run was never published, or a version that it names cannot be read any more.
    """
    store.version(PUBLICATIONS)  # says which job to run when there is no table
    there = publications(store)
    target, latest = newest(there, run_id), newest(there)
    if target is None or latest is None:
        runs = ", ".join(dict.fromkeys(one.run_id for one in reversed(there)))
        raise TableError(f"run {run_id} was never published, so there is nothing to go back to; published runs: {runs}")
    if target is latest:
        return Published(latest, True, store.version(PUBLICATIONS))
    check_readable(store, target)
    made = replace(
        target,
        publication=latest.publication + 1,
        published_at=datetime.now(UTC),
        rolled_back_from=latest.run_id,
    )
    return Published(made, True, write_publication(store, made))


def check_readable(store: TableStore, publication: Publication) -> None:
    """Reads a column of every table of the publication, so that a file that is gone is found now.

    Raises:
        TableError: the message names the tables that cannot be read and what to do.
    """
    checks: dict[str, Callable[[], str]] = {
        contract.name: partial(_problem, store, contract, publication)
        for contract in ALL
        if contract.name in publication.tables
    }
    problems = [problem for problem in side_by_side(checks).values() if problem]
    if problems:
        raise TableError(
            f"run {publication.run_id} cannot be published again: {'; '.join(problems)}. VACUUM or somebody else has "
            "removed what it needs; give a run that was published later, or make this one again: ./spark-submit.sh "
            f"pipeline --run-id {publication.run_id}. The latest publication stays as it is"
        )


def _problem(store: TableStore, contract: Contract, publication: Publication) -> str:
    version = publication.tables[contract.name]
    try:
        # a column of the rows, because Delta counts rows from its log without opening a file
        where = {"run_id": publication.run_id} if contract.mode == "by_run" else {}
        store.tallied(contract, _counted, _COUNT, version, ("run_id",), where)
    except Exception as error:
        return f"{contract.name} at version {version} ({explain(error)[0]})"
    return ""


_COUNT = T.StructType([T.StructField("rows", T.LongType())])


def _counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"rows": pa.array([batch.num_rows], pa.int64())})
