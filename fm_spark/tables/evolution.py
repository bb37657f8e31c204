"""Makes tables as their contract declares them, and brings older ones up to date, each step a commit that says so.

A contract only grows, and by declaration: a column with ``since=2`` came in its version 2. The table keeps the version
of the contract that it follows as a property.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.contracts import ID, Column, Contract

CONTRACT_PROPERTY = "fm_spark.contract"
VERSION_PROPERTY = "fm_spark.contract_version"
_CONSTRAINT = "delta.constraints."


def create(spark: SparkSession, uri: str, contract: Contract, types: T.StructType, replace: bool) -> None:
    """Commits the empty table: columns, NOT NULL, checks, comments and properties of the contract.

    Args:
        spark: a session of the caller's own, whose settings the commit takes.
        types: the types of the columns, where ``id`` is what the input has.
        replace: whether files of an interrupted write lie there, which belong to no version.
    """
    builder = DeltaTable.createOrReplace(spark) if replace else DeltaTable.createIfNotExists(spark)
    builder = builder.location(uri).comment(contract.comment).addColumns(declared(contract, types))
    if contract.partitions:
        builder = builder.partitionedBy(*contract.partitions)
    for name, value in properties(contract).items():
        builder = builder.property(name, value)
    builder.execute()


def declared(contract: Contract, types: T.StructType) -> T.StructType:
    """The schema of the table: what the contract says and, for ``id`` columns, what the rows have."""
    return T.StructType(
        [T.StructField(c.name, types[c.name].dataType, c.nullable, {"comment": c.comment}) for c in contract.columns]
    )


def properties(contract: Contract) -> dict[str, str]:
    """The table properties of a new table."""
    made = {CONTRACT_PROPERTY: contract.name, **_settings(contract)}
    made.update({f"{_CONSTRAINT}{c.name}": constraint(c) for c in contract.columns if c.condition})
    return made


def with_later_columns(table: DataFrame, contract: Contract) -> DataFrame:
    """The contract's columns in order; null where the table, or this version of it, does not have one yet."""
    there = set(table.columns)
    return table.select(
        *[
            F.col(f"`{c.name}`")
            if c.name in there
            else F.lit(None).cast("string" if c.type == ID else c.type).alias(c.name)
            for c in contract.columns
        ]
    )


def constraint(column: Column) -> str:
    """The check of a column as Delta's constraint, to which an unknown answer is a no."""
    unknown = column.nullable or column.since > 1 or column.type.startswith("array")
    return f"coalesce({column.condition}, true)" if unknown else column.condition


def refuse_newer(contract: Contract, there: Mapping[str, str], path: str) -> None:
    """Raises when the table follows a newer contract than this program knows.

    Args:
        there: the properties of the table.

    Raises:
        TableError: it does.
    """
    version = version_of(there)
    if version > contract.version:
        raise TableError(
            f"{path} follows version {version} of the contract of {contract.name}, and this fm_spark knows version "
            f"{contract.version}; update fm_spark, or set another tables.root"
        )


def version_of(there: Mapping[str, str]) -> int:
    """The version of the contract that a table follows; tables from before it was kept follow the first."""
    return int(there.get(VERSION_PROPERTY, "1"))


def refuse_undeclared(contract: Contract, columns: Sequence[str], version: int, path: str) -> None:
    """Raises when the columns of a table are not those that its contract declares.

    Args:
        columns: names of those of the table.
        version: that of the contract which the table follows.

    Raises:
        TableError: a column that no version of the contract declares, or one that is missing.
    """
    names = set(columns)
    unknown = sorted(names - set(contract.column_names))
    missing = [c.name for c in contract.columns if c.since <= version and c.name not in names]
    if unknown or missing:
        has = f"has {', '.join(unknown)}, which its contract does not declare" if unknown else ""
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        raise TableError(
            f"{path} {' and '.join(filter(None, (has, lacks)))}; columns are added by a new version of the contract of "
            f"{contract.name} only: restore the table to a version from before the change, or set another tables.root"
        )


def migrate(
    spark: SparkSession, identifier: str, contract: Contract, columns: T.StructType, types: T.StructType
) -> None:
    """Adds the columns that are declared since the table was made, then notes the new version as a property.

    Two commits, and a check of each new column is one more; what an interrupted migration has done is not done again.

    Args:
        spark: a session of the caller's own, whose settings the commits take.
        identifier: the table for SQL.
        columns: those of the table; ``types``: those of the new rows.
    """
    new = [c for c in contract.columns if c.name not in columns.names]
    if new:
        added = ", ".join(f"`{c.name}` {types[c.name].dataType.simpleString()} {_comment(c)}" for c in new)
        spark.sql(f"ALTER TABLE {identifier} ADD COLUMNS ({added})")
    shown = spark.sql(f"SHOW TBLPROPERTIES {identifier}").collect()
    there = {row["key"] for row in shown}
    for column in (c for c in contract.columns if c.since > 1 and c.condition):
        if f"{_CONSTRAINT}{column.name}" not in there:
            spark.sql(f"ALTER TABLE {identifier} ADD CONSTRAINT `{column.name}` CHECK ({constraint(column)})")
    settings = ", ".join(f"'{name}' = '{value}'" for name, value in _settings(contract).items())
    spark.sql(f"ALTER TABLE {identifier} SET TBLPROPERTIES ({settings})")


def _settings(contract: Contract) -> dict[str, str]:
    made = {VERSION_PROPERTY: str(contract.version), **dict(contract.properties)}
    if contract.kept_hours:
        made["delta.deletedFileRetentionDuration"] = f"interval {contract.kept_hours} hours"
    if contract.row_group_bytes:
        made["parquet.block.size"] = str(contract.row_group_bytes)
        # Parquet's 1 MB for the distinct values of a column is too little for titles: they would stand in every row
        made["parquet.dictionary.page.size"] = str(4 * 2**20)
    return made


def _comment(column: Column) -> str:
    escaped = column.comment.replace("\\", "\\\\").replace("'", "\\'")
    return f"COMMENT '{escaped}'"
