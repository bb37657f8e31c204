"""Results that a person asks for at a path of his own: one CSV or Parquet file, or a Delta table; all or nothing.

What is there is replaced in one step, and only when fm_spark wrote it: it is known by the columns at its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from fm_spark.errors import ConfigError, TableError
from fm_spark.tables.evolution import CONTRACT_PROPERTY
from fm_spark.tables.files import Folder

PLACE = "_place"
"""The column that says where a row came from; never written."""
RESULT = "result"
"""Value of the table property by which a Delta table is known as a result."""
MARKS = ("score", "source", "run_id", "model_version")
"""Columns that every result has; the last two stand at its end."""
Form = Literal["csv", "parquet", "delta"]
_NESTED = (T.ArrayType, T.MapType, T.StructType, T.BinaryType)


@dataclass(frozen=True)
class Output:
    """A place that may be written.

    Attributes:
        key: the configuration key that names it; path: as given there.
        form: by its ending.
        delimiter: of a CSV.
    """

    spark: SparkSession
    key: str
    path: str
    form: Form
    delimiter: str

    @property
    def shown(self) -> str:
        """The path for people."""
        return self._folder.shown()

    def write(self, rows: DataFrame, order: Sequence[str]) -> None:
        """Writes the rows in this order, without :data:`PLACE`; what was there stays on failure.

        A CSV or Parquet is one file, written by one task; a Delta table is written by as many as it takes.

        Raises:
            TableError: the form cannot hold a column.
        """
        columns = [f"`{name.replace('`', '``')}`" for name in rows.columns if name != PLACE]
        try:
            if self.form == "delta":
                kept = rows.orderBy(*order).select(*columns)
                self._write_delta(kept)
            else:
                self._write_file(rows.repartition(1).sortWithinPartitions(*order).select(*columns))
        except AnalysisException as error:
            raise TableError(
                f"{self.key} = {self.path!r}: {self.form} cannot hold these rows ({str(error).splitlines()[0]}); "
                "rename or leave out the column, or choose another ending (.csv, .parquet, or none for Delta)"
            ) from error

    def check_columns(self, rows: DataFrame) -> None:
        """Refuses columns that the form cannot hold.

        Raises:
            ConfigError: names them.
        """
        nested = [f.name for f in rows.schema if isinstance(f.dataType, _NESTED) and f.name != PLACE]
        if self.form == "csv" and nested:
            raise ConfigError(
                f"{self.key} = {self.path!r}: a CSV cannot hold column {nested[0]} "
                f"({rows.schema[nested[0]].dataType.simpleString()}); give a path that ends in .parquet"
            )

    @property
    def _folder(self) -> Folder:
        return Folder(self.spark, self.path, self.key)

    def _write_delta(self, rows: DataFrame) -> None:
        uri = self._folder.uri()
        if self._folder.child("_delta_log").exists():  # check_output has seen whose it is
            rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(uri)
            return
        created = rows.writeTo(f"delta.`{uri.replace('`', '``')}`").using("delta")
        created.tableProperty(CONTRACT_PROPERTY, RESULT).create()

    def _write_file(self, rows: DataFrame) -> None:
        parent, name = _parted(self._folder.uri())
        scratch = Folder(self.spark, f"{parent}/.{name}-{uuid4().hex}", self.key)
        try:
            writer = rows.write.mode("error")
            if self.form == "csv":
                writer.csv(scratch.uri(), header=True, sep=self.delimiter, escape='"', quote='"')
            else:
                writer.parquet(scratch.uri())
            part = next(name for name in scratch.names() if name.startswith("part-"))
            scratch.child(part).replace(self._folder)
        finally:
            scratch.remove()


def check_output(spark: SparkSession, key: str, path: str, delimiter: str, inputs: Sequence[str] = ()) -> Output:
    """Makes sure that the result can be written, before anything is computed.

    Args:
        inputs: URIs of what is read and of tables of our own, which the output must not touch.

    Raises:
        ConfigError: the path is empty, or is or holds an input, or lies in one.
        TableError: something is there that fm_spark did not write, or the folder cannot be written.
    """
    if not path.strip():
        raise ConfigError(f"{key} is empty; give a path that ends in .csv or .parquet, or one for a Delta table")
    ending = re.search(r"\.(csv|parquet)/?$", path.lower())
    form: Form = "delta" if ending is None else "csv" if ending[1] == "csv" else "parquet"
    output = Output(spark, key, path, form, delimiter)
    own = Folder(spark, path, key)
    uri = own.uri().rstrip("/")
    for other in (one.rstrip("/") for one in inputs):
        if f"{uri}/".startswith(f"{other}/") or f"{other}/".startswith(f"{uri}/"):
            shown = Folder(spark, other).shown()
            raise ConfigError(f"{key} = {path!r} would overwrite {shown}, which fm_spark reads; give another path")
    Folder(spark, _parted(uri)[0], key).check_writable()
    if own.exists() and not _is_ours(output, own):
        raise TableError(
            f"{key} = {path!r}: there is something that fm_spark did not write as a {form} result; move it away or "
            "give another path"
        )
    return output


def _is_ours(output: Output, own: Folder) -> bool:
    spark, uri = output.spark, own.uri()
    if output.form == "delta":
        if own.is_folder() and own.is_empty():
            return True
        if not Folder(spark, f"{uri.rstrip('/')}/_delta_log").exists():
            return False
        quoted = uri.replace("`", "``")
        rows = spark.sql(f"SHOW TBLPROPERTIES delta.`{quoted}`").collect()
        return {row["key"]: row["value"] for row in rows}.get(CONTRACT_PROPERTY) == RESULT
    if own.is_folder():
        return False
    literal = re.sub(r"([\\{}\[\]*?])", r"\\\1", uri)
    try:
        if output.form == "csv":
            columns = spark.read.csv(literal, header=True, sep=output.delimiter).columns
        else:
            columns = spark.read.parquet(literal).columns
    except (AnalysisException, Py4JJavaError):
        return False
    return set(MARKS) <= set(columns) and tuple(columns[-2:]) == MARKS[-2:]


def _parted(uri: str) -> tuple[str, str]:
    parent, _, name = uri.rstrip("/").rpartition("/")
    return parent, name
