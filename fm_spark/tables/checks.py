"""What rows must fulfil before they are committed to a table, found in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.contracts import Contract

SHOWN_KEYS = 5
_WIDTH: dict[type[T.DataType], int] = {
    T.ByteType: 1,
    T.BooleanType: 1,
    T.ShortType: 2,
    T.IntegerType: 4,
    T.FloatType: 4,
}


@dataclass(frozen=True)
class Found:
    """Size of checked rows.

    Attributes:
        rows: number of rows.
        bytes: rough size of the values in memory, uncompressed.
    """

    rows: int
    bytes: int


@dataclass(frozen=True)
class Problems:
    """What stands against committing rows.

    Attributes:
        nulls: column that must not be null -> rows without a value.
        foreign: rows of another run; repeated: keys that occur more than once, the first of them as examples.
    """

    rows: int
    nulls: dict[str, int]
    foreign: int
    repeated: int
    examples: list[tuple[tuple[object, ...], int]]


def check_rows(rows: DataFrame, contract: Contract, run_id: str) -> Found:
    """Counts nulls, repeated keys, rows of another run, and the size; one aggregation by the table's key.

    Args:
        rows: the contract's columns, in order.

    Raises:
        TableError: a null in a column that forbids it, a key that occurs twice, a row of another run.
    """
    required = [c.name for c in contract.columns if not c.nullable]
    counts = [_count(F.col(_quoted(name)).isNull()).alias(f"null_{i}") for i, name in enumerate(required)]
    foreign = _count(F.col("run_id") != F.lit(run_id)) if contract.mode == "by_run" else F.sum(F.lit(0))
    size = F.sum(sum((_bytes(field) for field in rows.schema), start=F.lit(0)))
    by_key = rows.groupBy(*[F.col(_quoted(name)).alias(f"key_{i}") for i, name in enumerate(contract.key)])
    sums = [F.sum(f"null_{i}").alias(f"null_{i}") for i in range(len(required))]
    total = (
        by_key.agg(F.count(F.lit(1)).alias("n"), size.alias("bytes"), foreign.alias("foreign"), *counts)
        .agg(
            F.sum("n").alias("rows"),
            F.sum("bytes").alias("bytes"),
            F.sum("foreign").alias("foreign"),
            F.sum((F.col("n") > 1).cast("int")).alias("repeated"),
            *sums,
        )
        .collect()[0]
    )
    repeated = int(total["repeated"] or 0)
    problems = Problems(
        rows=int(total["rows"] or 0),
        nulls={name: int(total[f"null_{i}"] or 0) for i, name in enumerate(required)},
        foreign=int(total["foreign"] or 0),
        repeated=repeated,
        examples=_repeated_keys(rows, contract) if repeated else [],
    )
    refuse_problems(contract, run_id, problems)
    return Found(rows=problems.rows, bytes=int(total["bytes"] or 0))


def refuse_problems(contract: Contract, run_id: str, problems: Problems) -> None:
    """Raises the TableError for the first kind of problem that there is; returns when there is none."""
    nulls = {name: n for name, n in problems.nulls.items() if n}
    if nulls:
        what = ", ".join(f"{name} ({n:,} of {problems.rows:,} rows)" for name, n in nulls.items())
        raise TableError(
            f"table {contract.name}: no value in {what}; these columns must not be null, nothing was written"
        )
    if problems.foreign:
        raise TableError(f"table {contract.name}: {problems.foreign:,} rows carry another run_id than {run_id}")
    if problems.repeated:
        shown = "; ".join(f"({', '.join(map(str, key))}) {n} times" for key, n in problems.examples)
        raise TableError(
            f"table {contract.name}: {problems.repeated:,} keys ({', '.join(contract.key)}) occur more than once, "
            f"nothing was written: {shown}"
        )


def _repeated_keys(rows: DataFrame, contract: Contract) -> list[tuple[tuple[object, ...], int]]:
    key = [F.col(_quoted(name)) for name in contract.key]
    repeated = rows.groupBy(*key).count().where("count > 1").orderBy(*key).limit(SHOWN_KEYS).collect()
    return [(tuple(row[:-1]), row[-1]) for row in repeated]


def _quoted(name: str) -> str:
    return f"`{name}`"


def _count(condition: Column) -> Column:
    return F.sum(condition.cast("bigint"))


def _bytes(field: T.StructField) -> Column:
    """Rough bytes of one value; an array counts its elements, anything nested counts 32 an element."""
    column = F.col(_quoted(field.name))
    if isinstance(field.dataType, T.StringType | T.BinaryType):
        return F.coalesce(F.length(column), F.lit(0)) + F.lit(4)
    if isinstance(field.dataType, T.ArrayType):
        width = _WIDTH.get(type(field.dataType.elementType), 32)
        return F.coalesce(F.greatest(F.size(column), F.lit(0)) * F.lit(width), F.lit(0)) + F.lit(4)
    if isinstance(field.dataType, T.MapType):
        return F.coalesce(F.greatest(F.size(column), F.lit(0)) * F.lit(64), F.lit(0))
    return F.lit(_WIDTH.get(type(field.dataType), 8))
