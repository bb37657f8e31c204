"""Commits files that are there already, by delta-rs: one commit that adds them and takes away what they replace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from fm_spark.errors import TableError
from fm_spark.tables.data_file import File
from fm_spark.tables.local import EVERYTHING


def files_of_run(path: str, run_id: str) -> dict[str, int] | None:
    """Names and bytes of the newest files that hold rows of the run and of no other; None where one holds both."""
    actions = _entries(path)
    if actions.num_rows == 0:
        return {}
    if not {"min.run_id", "max.run_id"} <= set(actions.column_names):
        return None
    found = {}
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "min.run_id", "max.run_id"))
    for name, size, low, high in zip(*columns, strict=True):
        if low is None or high is None or (low <= run_id <= high and low != high):
            return None
        if low == run_id:
            found[name] = size
    return found


def files_of_partition(path: str, values: Mapping[str, object]) -> dict[str, int]:
    """Names and bytes of the newest files of the partitions in which these columns have these values."""
    actions = _entries(path)
    if actions.num_rows == 0:
        return {}
    found = actions.select(["path", "size_bytes", *(f"partition.{name}" for name in values)]).to_pylist()
    wanted = {f"partition.{name}": str(value) for name, value in values.items()}
    return {
        row["path"]: row["size_bytes"]
        for row in found
        if all(str(row[name]) == value for name, value in wanted.items())
    }


def all_files(path: str) -> dict[str, int]:
    """Names and bytes of the files of the newest version."""
    actions = _entries(path)
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def _entries(path: str) -> pa.Table:
    return pa.table(DeltaTable(path).get_add_actions(flatten=True))


def written_meanwhile(path: str) -> TableError:
    """What is said when another job has made the version that this one was to make."""
    return TableError(f"another job wrote {path} at the same time; its version stands, run this job again")


def commit_files(
    path: str,
    added: Sequence[File],
    removed: Mapping[str, int],
    note: str,
    partition: Mapping[str, object] = EVERYTHING,
) -> None:
    """Makes the next version of the table.

    Args:
        removed: names and bytes of files of the newest version.
        note: the commit's ``userMetadata``.
        partition: values of the columns by which the table is partitioned, the same in all files.

    Raises:
        TableError: another job made a version meanwhile.
    """
    table, now = DeltaTable(path), int(time.time() * 1000)
    values: dict[str, str | None] = {name: str(value) for name, value in partition.items()}
    actions: list[AddAction | RemoveAction] = [
        RemoveAction(name, True, now, size, values) for name, size in removed.items()
    ]
    actions += [AddAction(one.path, one.size, values, now, True, one.stats) for one in added]
    metrics = {"numFiles": str(len(added)), "numOutputRows": str(sum(one.rows for one in added))}
    try:
        table.create_write_transaction(
            actions,
            mode="append",
            schema=table.schema(),
            partition_by=table.metadata().partition_columns,
            commit_properties=CommitProperties({"userMetadata": note, "operationMetrics": metrics}, 0),
            # what is old goes when maintenance says so
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
        )
    except CommitFailedError as error:
        raise written_meanwhile(path) from error
