"""One Delta table at one version, as pyarrow sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, reduce
from operator import and_
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from fm_spark.errors import TableError
from fm_spark.tables.lookup import LookupFile, Values, find_rows, lookup_files

if TYPE_CHECKING:  # loading it takes longer than a look-up
    import pyarrow.dataset as ds

# what pyarrow's datasets cannot follow; deltalake's own engine can
_OTHER_FEATURES = {"deletionVectors", "columnMapping"}


class NoTable(TableError):
    """There is no Delta table at the location."""


class Handle:
    """A table that stays at its version; what was read once of its log and of its files' footers is kept.

    Args:
        location: path or URI of the table.
        version: the Delta version; None takes the newest.
        storage_options: what deltalake needs to reach an object store.

    Raises:
        NoTable: there is no such table.
        TableError: there is no such version of it any more, or it cannot be reached.
    """

    def __init__(self, location: str, version: int | None, storage_options: Mapping[str, str] | None = None) -> None:
        self.location = location
        options = dict(storage_options) if storage_options else None
        try:
            self._table = DeltaTable(location, version=version, storage_options=options)
        except TableNotFoundError as error:
            raise NoTable(f"no table at {location}: {short(error)}") from error
        except (DeltaError, OSError) as error:
            which = "" if version is None else f" at version {version}"
            raise TableError(f"cannot open {location}{which}: {short(error)}") from error

    @property
    def version(self) -> int:
        """The Delta version."""
        return self._table.version()

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return pa.schema(self._table.schema().to_arrow())

    def read(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """The rows that fulfil the condition; files and row groups that cannot hold any are not read.

        Raises:
            TableError: a file of the version is gone or damaged, or the condition does not fit the columns.
        """
        with self._files_there():
            return self._scanner(columns, where).to_table()

    def find(self, where: Values, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that have one of the values in each column of ``where``, in no order.

        As :meth:`read`, and quicker where few rows are wanted: what it needs is loaded sooner.

        Raises:
            TableError: a file of the version is gone or damaged.
        """
        if "://" in self.location or not self.is_plain or self._table.metadata().partition_columns:
            return self.read(columns, any_of(where, self.schema))
        with self._files_there():
            return find_rows(self._files, self.schema, columns or self.schema.names, where)

    @cached_property
    def _files(self) -> list[LookupFile]:
        entries = pa.RecordBatchReader.from_stream(self._table.get_add_actions(flatten=True)).read_all()
        plain = [
            field.name for field in self.schema if pa.types.is_integer(field.type) or pa.types.is_string(field.type)
        ]
        return lookup_files(self.location, entries, plain)

    def head(self, n: int, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """As :meth:`read`, of the rows at most ``n``, whichever are found first."""
        with self._files_there():
            return self._scanner(columns, where).head(n)

    def count(self, where: pc.Expression | None = None) -> int:
        """How many rows fulfil the condition."""
        with self._files_there():
            return int(self._scanner([], where).count_rows())

    @property
    def is_plain(self) -> bool:
        """Whether the rows of the table are those of its files, under the same names."""
        return not set(self._table.protocol().reader_features or ()) & _OTHER_FEATURES

    def files(self) -> list[str]:
        """Paths of the files of the version, on a local file system."""
        return [unquote(str(path)) for path in self._table.file_uris()]

    def batches(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.RecordBatchReader:
        """As :meth:`read`, a batch at a time: memory does not grow with the table."""
        with self._files_there():
            scanner = self._scanner(columns, where)
        return pa.RecordBatchReader.from_batches(scanner.projected_schema, self._stream(scanner))

    def _stream(self, scanner: ds.Scanner) -> Iterator[pa.RecordBatch]:
        with self._files_there():
            yield from scanner.to_batches()

    @cached_property
    def _dataset(self) -> ds.Dataset | None:
        """The files with what the log says of their content; None when pyarrow cannot read the table by itself."""
        return self._table.to_pyarrow_dataset() if self.is_plain else None

    def _scanner(self, columns: Sequence[str] | None, where: pc.Expression | None) -> ds.Scanner:
        import pyarrow.dataset as ds

        names = list(columns) if columns is not None else None
        if self._dataset is not None:
            # one batch ahead and no more: rows are read to be handed on, not to be kept
            return self._dataset.scanner(columns=names, filter=where, batch_readahead=4, fragment_readahead=1)
        # whole files, because deltalake takes conditions as SQL text, and no value of a caller goes into such text
        return ds.Scanner.from_batches(self._whole_files(), schema=self.schema, columns=names, filter=where)

    def _whole_files(self) -> Iterator[pa.RecordBatch]:
        for batch in pa.RecordBatchReader.from_stream(self._table.scan()):
            # deltalake gives text as views, which pyarrow cannot filter
            yield batch.select(self.schema.names).cast(self.schema)

    @contextmanager
    def _files_there(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TableError(
                f"cannot read {self.location} at version {self.version}: {short(error)}; when its files have been "
                "vacuumed away, open a newer publication, and keep more of them (docs/reading.md)"
            ) from error
        except pa.ArrowException as error:  # a condition that does not fit the columns, a damaged file
            raise TableError(f"cannot read {self.location} at version {self.version}: {short(error)}") from error


def any_of(where: Values, schema: pa.Schema) -> pc.Expression | None:
    """The condition that rows have one of the values in each column, as an expression; None without any."""
    tests = [_one_of(name, values, schema) for name, values in where.items()]
    return reduce(and_, tests) if tests else None


def _one_of(name: str, values: Sequence[object], schema: pa.Schema) -> pc.Expression:
    if name not in schema.names:  # it came later: no row has a value in it
        return pc.scalar(None in values)
    if len(values) == 1 and values[0] is not None:
        # what files and row groups say of a column answers this best
        return pc.field(name) == values[0]
    return pc.is_in(pc.field(name), value_set=pa.array(values, schema.field(name).type))


def short(error: Exception) -> str:
    """The first line of what an error says and, after dots, the last one, which names the cause; without colours."""
    plain = re.sub(r"\x1b\[\d*m|↳", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
