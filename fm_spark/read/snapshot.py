"""A publication as its readers see it: every table of one run, at the versions that the publication names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from numbers import Integral
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fm_spark.errors import TableError
from fm_spark.read.list_changes import CHANGES, ONLY_LIST, changed_rows
from fm_spark.tables import contracts as C
from fm_spark.tables.handle import Handle, NoTable
from fm_spark.tables.published import Publication, newest, own_rows, publication_of

__all__ = ["CHANGES", "Id", "Snapshot", "open", "publications"]

LATEST = "latest"
Id = int | str
"""An identifier of a user or an item, as in the input."""

_SHOWN_RUNS = 10
_CONTRACTS = {contract.name: contract for contract in C.ALL}


class Snapshot:
    """The tables of one publication. Whatever is written meanwhile, it reads the same rows.

    It keeps what it has read of logs and footers, so that the second look-up in a table is faster than the first: hold
    on to it, and ask :meth:`refresh` for the latest publication. Threads may share it.

    Attributes:
        root: where the tables lie, a path or a URI.
        publication: run_id, model_version, published_at, tables (name -> Delta version), metrics, gates, ...
    """

    def __init__(self, root: str, publication: Publication, storage_options: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.publication = publication
        self._storage_options = storage_options
        self._handles: dict[tuple[str, int], Handle] = {}

    def __repr__(self) -> str:
        return f"<run {self.publication.run_id} published at {self.publication.published_at:%Y-%m-%d %H:%M:%S} UTC>"

    def refresh(self) -> Snapshot:
        """The latest publication: this very object when there is no newer one, else a new snapshot.

        Tables that have the same version in both stay open.
        """
        latest = _choose(self.root, publications(self.root, storage_options=self._storage_options), LATEST)
        if latest == self.publication:
            return self
        fresh = Snapshot(self.root, latest, self._storage_options)
        fresh._handles.update(self._handles)
        return fresh

    def top_n(self, user_id: Id | None = None, list_name: str | None = ONLY_LIST) -> pa.Table:
        """The list of a user, best first; no row for a user without one. Without a user, the lists of all users.

        Args:
            list_name: one of ``recommend.lists``; None takes all lists of the user.

        Raises:
            TableError: see :meth:`table`.
        """
        return self._sorted(C.TOP_N, {"user_id": user_id, "list_name": list_name}, ["list_name", "rank"])

    def similar(self, item_id: Id) -> pa.Table:
        """The items nearest to an item, nearest first; no row for an unknown one."""
        return self._sorted("similar_items", {"item_id": item_id}, ["rank"])

    def cluster(self, item_id: Id) -> pa.Table:
        """The row of ``item_clusters`` that says which cluster an item belongs to; no row for an unknown one."""
        return self._sorted(C.ITEM_CLUSTERS, {"item_id": item_id}, [])

    def items_of_cluster(self, cluster_id: int) -> pa.Table:
        """The items of a cluster, those nearest to its centre first."""
        return self._sorted(C.ITEM_CLUSTERS, {"cluster_id": cluster_id}, ["distance"])

    def popular(self, kind: str = "count", genre: str = "") -> pa.Table:
        """The most popular items, best first.

        Args:
            kind: ``count``, ``weighted_rating`` or ``trending``.
            genre: only the items of it; ``""`` ranks all items.
        """
        return self._sorted("popular_items", {"kind": kind, "genre": genre}, ["rank"])

    def items(self, item_id: Id | None = None) -> pa.Table:
        """The catalogue, or the row of one item."""
        return self._sorted(C.ITEMS, {"item_id": item_id}, [])

    def model(self) -> pa.Table:
        """The row of ``fm_model`` of the model that made the lists."""
        return self._sorted(C.FM_MODEL, {"model_version": self.publication.model_version}, [])

    def table(self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Any table of the publication; of one that holds several runs, the rows of this one.

        Args:
            name: of docs/tables.md.
            columns: None takes all.
            where: a condition, for example ``pyarrow.compute.field("cluster_id") == 3``; it decides which files are
                read.

        Raises:
            TableError: the publication has no such table, or the table's version is gone.
        """
        handle = self._handle(name)
        return handle.read(self._known(handle, columns), self._own(name, handle, where))

    def batches(
        self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.RecordBatchReader:
        """As :meth:`table`, a batch at a time, for tables that memory does not hold."""
        handle = self._handle(name)
        return handle.batches(self._known(handle, columns), self._own(name, handle, where))

    def changes(self, since: str | datetime) -> pa.Table:
        """What changed in the lists of users since an earlier publication.

        Two lists differ by their items and ranks; scores and run ids do not count. Users who have gained or lost a
        whole list count with every row of it.

        Args:
            since: as ``publication`` of :func:`open`.

        Returns:
            user_id, list_name, change (inserted, deleted or moved), item_id, rank_before (null: inserted), rank_after
            (null: deleted); by user, list and rank.

        Raises:
            TableError: see :func:`open`; the ids of users or items are of another type than they were.
        """
        return pa.Table.from_batches(reader := self.change_batches(since), reader.schema)

    def change_batches(self, since: str | datetime, rows: int = 500_000) -> pa.RecordBatchReader:
        """As :meth:`changes`, a range of users at a time: memory does not grow with the number of users.

        Args:
            rows: about how many rows of either publication are compared at a time.
        """
        before = open(self.root, since, storage_options=self._storage_options)
        return changed_rows(before._lists(), self._lists(), rows)

    def _lists(self) -> tuple[Handle, pc.Expression]:
        handle = self._handle(C.TOP_N.name)
        return handle, self._own(C.TOP_N.name, handle, None)

    def _sorted(self, table: C.Contract | str, where: Mapping[str, Id | None], order: Sequence[str]) -> pa.Table:
        """The rows with the given values, in the given order."""
        name = table if isinstance(table, str) else table.name
        handle = self._handle(name)
        wanted: dict[str, list[Id | None]] = {column: [value] for column, value in self._own_values(name).items()}
        for column, value in where.items():
            if value is None or (column == "list_name" and column not in handle.schema.names):
                continue  # a run of before there were named lists has only one, here and where a null says so
            only = (column, value) == ("list_name", ONLY_LIST)
            wanted[column] = [_typed(value, column, handle, name), *([None] if only else [])]
        rows = handle.find(wanted)
        by = [(column, "ascending") for column in order if column in rows.column_names]
        return rows.sort_by(by) if by and rows.num_rows > 1 else rows

    def _handle(self, name: str) -> Handle:
        version = self.publication.tables.get(name)
        if version is None:
            known = ", ".join(sorted(self.publication.tables))
            raise TableError(f"run {self.publication.run_id} has published no table {name}; it has {known}")
        if (name, version) not in self._handles:
            try:
                handle = Handle(f"{self.root}/{name}", version, self._storage_options)
            except TableError as error:
                raise TableError(
                    f"{error}; run {self.publication.run_id} has published version {version} of {name}: when it has "
                    "been cleaned up since, open a newer publication"
                ) from error
            self._handles[name, version] = handle
        return self._handles[name, version]

    def _own(self, name: str, handle: Handle, where: pc.Expression | None) -> pc.Expression | None:
        """The condition, and that the rows are of this run and of the model that serves readers."""
        own = where
        for column, value in self._own_values(name).items():
            equal = pc.field(column) == value
            own = equal if own is None else own & equal
        return own

    def _own_values(self, name: str) -> dict[str, str]:
        contract = _CONTRACTS.get(name)  # None: of a table that a later version of fm_spark has published
        return own_rows(self.publication, contract) if contract else {"run_id": self.publication.run_id}

    def _known(self, handle: Handle, columns: Sequence[str] | None) -> Sequence[str] | None:
        unknown = [name for name in columns or () if name not in handle.schema.names]
        if unknown:
            raise TableError(
                f"{handle.location} has no column {', '.join(unknown)}; it has {', '.join(handle.schema.names)}"
            )
        return columns


def open(
    root: str | os.PathLike[str],
    publication: str | datetime = LATEST,
    *,
    storage_options: Mapping[str, str] | None = None,
) -> Snapshot:
    """Opens a publication of the tables under a root.

    Args:
        root: ``tables.root`` of the runs: a path, or a URI of an object store (s3://, az://, gs://, ...).
        publication: ``latest``; a run id; or a time (a datetime or ISO 8601 text, UTC when it names no zone), for the
            publication that was the latest then.
        storage_options: credentials and the like for the object store, as deltalake takes them.

    Raises:
        TableError: there is nothing at the root, nothing was published, or the run or time has no publication; the
            message lists the runs that have one.
    """
    place = _place(root)
    chosen = _choose(place, publications(place, storage_options=storage_options), publication)
    return Snapshot(place, chosen, storage_options)


def publications(
    root: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None
) -> list[Publication]:
    """Every publication under a root, oldest first.

    Raises:
        TableError: there is nothing at the root, or nothing was published.
    """
    place = _place(root)
    try:
        rows = Handle(f"{place}/{C.PUBLICATIONS.name}", None, storage_options).find({})
    except NoTable as error:
        raise TableError(
            f"nothing is published under {place} ({error}); run ./spark-submit.sh publish first"
        ) from error
    # microseconds: a time out of Arrow would load pandas
    micros = rows["published_at"].cast(pa.int64()).to_pylist()
    at = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=one) for one in micros]
    others = rows.drop_columns(["published_at"]).to_pylist()
    found = [publication_of({**row, "published_at": when}) for row, when in zip(others, at, strict=True)]
    return sorted(found, key=lambda one: one.publication)


def _place(root: str | os.PathLike[str]) -> str:
    place = os.fspath(root).rstrip("/")
    if "://" not in place and not os.path.isdir(place or "/"):
        raise TableError(f"there is no folder {root}; name the tables.root of the runs, for example warehouse")
    return place


def _choose(root: str, there: Sequence[Publication], which: str | datetime) -> Publication:
    at: datetime | None = None
    if isinstance(which, datetime):
        at = which
    elif which != LATEST:
        of_run = newest(there, which)
        if of_run is not None:
            return of_run
        at = _time(which)
        if at is None:
            raise TableError(f"no publication of run {which} under {root}; published are {_runs(there)}")
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    found = newest(there, at=at)
    if found is None:
        before = f" at {at.isoformat()}" if at else ""
        raise TableError(f"nothing was published under {root}{before}; published are {_runs(there)}")
    return found


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _runs(there: Sequence[Publication]) -> str:
    shown = [f"{one.run_id} ({one.published_at:%Y-%m-%d %H:%M:%S} UTC)" for one in reversed(there)]
    more = f" and {len(shown) - _SHOWN_RUNS} more" if len(shown) > _SHOWN_RUNS else ""
    return (", ".join(shown[:_SHOWN_RUNS]) + more) or "none"


def _typed(value: Id, column: str, handle: Handle, table: str) -> Id:
    """The value as the column's type has it; a value that no row can have is a mistake worth a word."""
    type_ = handle.schema.field(column).type if column in handle.schema.names else None
    if type_ is None:
        raise TableError(f"table {table} has no column {column}; it has {', '.join(handle.schema.names)}")
    if pa.types.is_integer(type_) and _is_whole(value):
        limit = 2 ** (type_.bit_width - 1)
        if -limit <= int(value) < limit:
            return int(value)
    if pa.types.is_string(type_) and isinstance(value, str):
        return value
    raise TableError(f"{column} of table {table} is {type_}; {value!r} ({type(value).__name__}) is not")


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number: 1.0 is, as numpy's and pandas' may come."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, Integral) and not isinstance(value, bool)
