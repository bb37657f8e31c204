"""Rows that lie on the driver: checked there, so that a small table costs Spark its commit and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from fm_spark.errors import TableError
from fm_spark.tables.checks import SHOWN_KEYS, Found, Problems, refuse_problems
from fm_spark.tables.contracts import ID, Contract

_NUMBER = 8  # bytes


def check_frame(frame: pd.DataFrame, contract: Contract, run_id: str) -> Found:
    """The checks of :func:`~fm_spark.tables.checks.check_rows` for rows on the driver; NaN counts as null.

    Raises:
        TableError: a column is missing, a null in a column that forbids it, a key that occurs twice, a row of another
            run.
    """
    missing = [name for name in contract.column_names if name not in frame.columns]
    if missing:
        raise TableError(
            f"table {contract.name}: the rows have no column {', '.join(missing)}; they have {', '.join(frame.columns)}"
        )
    nulls = {c.name: int(frame[c.name].isna().sum()) for c in contract.columns if not c.nullable}
    key = list(contract.key)
    size = frame.groupby(key, sort=True, dropna=False).size()
    again = size[size > 1]
    shown = again.head(SHOWN_KEYS).items()
    refuse_problems(
        contract,
        run_id,
        Problems(
            rows=len(frame),
            nulls=nulls,
            foreign=int((frame["run_id"] != run_id).sum()) if contract.mode == "by_run" else 0,
            repeated=len(again),
            examples=[((name if isinstance(name, tuple) else (name,)), int(n)) for name, n in shown],
        ),
    )
    return Found(rows=len(frame), bytes=sum(_bytes(frame[name]) for name in contract.column_names))


def spark_rows(spark: SparkSession, frame: pd.DataFrame, contract: Contract) -> DataFrame:
    """The frame in Spark, with the types of the contract; ``id`` columns keep theirs."""
    types = {column.name: column.type for column in contract.columns}
    types.update({name: _id_type(frame[name]) for name, type_ in types.items() if type_ == ID})
    schema = ", ".join(f"`{name}` {type_}" for name, type_ in types.items())
    rows = frame[contract.column_names]
    if any("map<" in type_ or "struct<" in type_ for type_ in types.values()):
        # not every supported Spark takes these from a frame; the tables that have them are the smallest
        values = [[_plain(value) for value in row] for row in rows.astype(object).to_numpy().tolist()]
        return spark.createDataFrame(values, schema)
    return spark.createDataFrame(rows, schema)


def _plain(value: object) -> object:
    """What Spark makes a row of: arrays and the values of maps, as they come back from a frame, as lists."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def _id_type(values: pd.Series[Any]) -> str:
    kind = values.to_numpy().dtype.kind
    # a fraction is no identifier; the shape of the contract refuses it by its name
    return {"i": "bigint", "u": "bigint", "f": "double"}.get(kind, "string")


def _bytes(values: pd.Series[Any]) -> int:
    """Rough bytes of a column in memory, uncompressed, judged by its first value where values have a length."""
    first = values.iloc[0] if len(values) else None
    if isinstance(first, np.ndarray):
        return len(values) * first.nbytes
    if isinstance(first, str | bytes | list | tuple | dict):
        width = 1 if isinstance(first, str | bytes) else _NUMBER
        return int(values.map(lambda value: len(value) if value is not None else 0).sum()) * width + 4 * len(values)
    return len(values) * _NUMBER
