"""What rows must fulfil before they are committed to a table, found in one pass over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.contracts import Contract
from fm_spark.tables.problems import SHOWN_ROWS, Broken, Repeated, Rule, refuse, rules
from fm_spark.tables.shape import kept_rows

_WIDTH: dict[type[T.DataType], int] = {
    T.ByteType: 1,
    T.BooleanType: 1,
    T.ShortType: 2,
    T.IntegerType: 4,
    T.FloatType: 4,
}


_REFUSALS = ("DELTA_NOT_NULL_CONSTRAINT_VIOLATED", "DELTA_VIOLATE_CONSTRAINT", "DELTA_REPLACE_WHERE_MISMATCH")


@dataclass(frozen=True)
class Found:
    """Size of checked rows.

    Attributes:
        rows: number of rows.
        bytes: rough size of the values in memory, uncompressed.
    """

    rows: int
    bytes: int


def check_rows(rows: DataFrame, contract: Contract, run_id: str) -> Found:
    """Looks for nulls, values that a check forbids, rows of another run and repeated keys; takes the size.

    One aggregation by the hash of the key: 64 bits a row cross the network, whatever the table holds. Different hashes
    are different keys; only where a hash occurs twice are the keys themselves compared, so the answer is exact.

    Args:
        rows: the contract's columns, in order.

    Raises:
        TableError: rows break the contract; the message names the columns and up to five rows of each.
    """
    size = F.sum(sum((_bytes(field) for field in rows.schema), start=F.lit(0)))
    bad = F.sum(reduce(or_, (_breaks(rule, run_id) for rule in rules(contract, run_id)), F.lit(False)).cast("bigint"))
    # the run is the same in all rows unless a rule is broken
    key = [name for name in contract.key if name != "run_id" or contract.mode != "by_run"] or contract.key
    total = (
        rows.groupBy(F.xxhash64(*map(_column, key)).alias("hash"))
        .agg(F.count(F.lit(1)).alias("n"), size.alias("bytes"), bad.alias("bad"))
        .agg(
            F.sum("n").alias("rows"),
            F.sum("bytes").alias("bytes"),
            F.sum("bad").alias("bad"),
            F.max("n").alias("most"),
        )
        .collect()[0]
    )
    n = int(total["rows"] or 0)
    broken = _broken_rules(rows, contract, run_id) if total["bad"] else []
    repeated = _repeated_keys(rows, contract) if (total["most"] or 0) > 1 else Repeated(0, ())
    refuse(contract, n, broken, repeated)
    return Found(rows=n, bytes=int(total["bytes"] or 0))


@contextmanager
def explained(rows: DataFrame, contract: Contract, run_id: str) -> Iterator[None]:
    """Says which rows are at fault when Delta, or the proof of their order, refuses rows that nobody looked at before.

    Raises:
        TableError: as :func:`check_rows`, which makes the rows once more; or as
            :func:`~fm_spark.tables.in_order.ascending`.
    """
    try:
        with refusals():
            yield
    except (PySparkException, Py4JJavaError) as error:
        if any(refusal in str(error) for refusal in _REFUSALS):
            with kept_rows(rows) as kept:
                check_rows(kept, contract, run_id)
        raise


@contextmanager
def refusals() -> Iterator[None]:
    """Raises the :class:`~fm_spark.errors.TableError` that a task has raised as such, without Spark's words around."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        said = str(error)
        if "TableError: " in said:
            raise TableError(said.split("TableError: ", 1)[1].splitlines()[0]) from error
        raise


def _broken_rules(rows: DataFrame, contract: Contract, run_id: str) -> list[Broken]:
    """The rules that rows break, each with its first rows by key."""
    wanted = rules(contract, run_id)
    counts = rows.agg(
        *[F.sum(_breaks(rule, run_id).cast("bigint")).alias(f"broken_{i}") for i, rule in enumerate(wanted)]
    ).collect()[0]
    key = [_column(name) for name in contract.key]
    found = []
    for rule, n in zip(wanted, counts, strict=True):
        if n:
            first = rows.where(_breaks(rule, run_id)).select(*key, _column(rule.column.name).alias("_value"))
            shown = first.orderBy(*key).limit(SHOWN_ROWS).collect()
            found.append(Broken(rule, int(n), [(tuple(row[:-1]), row[-1]) for row in shown]))
    return found


def _repeated_keys(rows: DataFrame, contract: Contract) -> Repeated:
    """The keys that occur more than once; nulls are alike."""
    key = [_column(name) for name in contract.key]
    again = rows.groupBy(*key).agg(F.count(F.lit(1)).alias("_n")).where("_n > 1")
    shown = again.orderBy(*key).limit(SHOWN_ROWS).collect()
    return Repeated(again.count() if shown else 0, [(tuple(row[:-1]), int(row[-1])) for row in shown])


def _breaks(rule: Rule, run_id: str) -> Column:
    if rule.kind == "present":
        return _column(rule.column.name).isNull()
    fulfilled = F.expr(rule.column.condition) if rule.kind == "check" else F.col("run_id") == F.lit(run_id)
    return F.coalesce(~fulfilled, F.lit(False))


def _column(name: str) -> Column:
    return F.col(f"`{name}`")


def _bytes(field: T.StructField) -> Column:
    """Rough bytes of one value; an array counts its elements, anything nested counts 32 an element."""
    column = _column(field.name)
    if isinstance(field.dataType, T.StringType | T.BinaryType):
        return F.coalesce(F.length(column), F.lit(0)) + F.lit(4)
    if isinstance(field.dataType, T.ArrayType):
        width = _WIDTH.get(type(field.dataType.elementType), 32)
        return F.coalesce(F.greatest(F.size(column), F.lit(0)) * F.lit(width), F.lit(0)) + F.lit(4)
    if isinstance(field.dataType, T.MapType):
        return F.coalesce(F.greatest(F.size(column), F.lit(0)) * F.lit(64), F.lit(0))
    return F.lit(_WIDTH.get(type(field.dataType), 8))
