"""Rows that lie on the driver: checked there, so that a small table costs Spark its commit and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.checks import Found
from fm_spark.tables.contracts import ID, Check, Contract
from fm_spark.tables.contracts.check import FLOATING, element_type
from fm_spark.tables.data_file import arrow_schema
from fm_spark.tables.problems import SHOWN_ROWS, Broken, Repeated, Rule, refuse, rules
from fm_spark.tables.shape import parsed_type, shape_of

_NUMBER = 8  # bytes


def check_frame(frame: pd.DataFrame, contract: Contract, run_id: str) -> Found:
    """The checks of :func:`~fm_spark.tables.checks.check_rows` for rows on the driver; NaN counts as null.

    Raises:
        TableError: a column is missing; rows break the contract.
    """
    missing = [name for name in contract.column_names if name not in frame.columns]
    if missing:
        raise TableError(
            f"table {contract.name}: the rows have no column {', '.join(missing)}; they have {', '.join(frame.columns)}"
        )
    broken = [_broken(frame, contract, rule, run_id) for rule in rules(contract, run_id)]
    size = frame.groupby(list(contract.key), sort=True, dropna=False).size()
    again = size[size > 1]
    shown = [((name if isinstance(name, tuple) else (name,)), int(n)) for name, n in again.head(SHOWN_ROWS).items()]
    refuse(contract, len(frame), broken, Repeated(len(again), shown))
    return Found(rows=len(frame), bytes=sum(_bytes(frame[name]) for name in contract.column_names))


def _broken(frame: pd.DataFrame, contract: Contract, rule: Rule, run_id: str) -> Broken:
    values = frame[rule.column.name]
    if rule.kind == "present":
        breaks = values.isna().to_numpy()
    elif rule.kind == "own":
        breaks = (values.notna() & (values != run_id)).to_numpy()
    else:
        breaks = ~fulfilled(values, rule.column.check, rule.column.type)
    if not breaks.any():
        return Broken(rule, 0, ())
    first = frame[breaks].sort_values(list(contract.key)).head(SHOWN_ROWS)
    keys = first[list(contract.key)].itertuples(index=False, name=None)
    return Broken(rule, int(breaks.sum()), list(zip(keys, first[rule.column.name], strict=True)))


def fulfilled(values: pd.Series[Any], check: Check, type_: str) -> npt.NDArray[np.bool_]:
    """Which values fulfil a check, of an array all of its elements; null does. Bool [n_rows]."""
    inner = element_type(type_)
    if inner != type_:
        return np.array([value is None or _elements(value, check, inner).all() for value in values], bool)
    return _elements(values, check, type_) | values.isna().to_numpy()


def _elements(values: Any, check: Check, type_: str) -> npt.NDArray[np.bool_]:
    if check.fields:
        names = [part.split(":")[0] for part in type_.removeprefix("struct<").split(",")]
        parts = [
            _elements([_field(value, name, names) for value in values], inner, "double") for name, inner in check.fields
        ]
        return np.asarray(np.logical_and.reduce(parts), bool)
    if check.one_of:
        return np.isin(np.asarray(values, object), check.one_of)
    numbers = np.asarray(values, np.float64)
    met: npt.NDArray[np.bool_] = ~np.isnan(numbers)
    if type_ in FLOATING:
        met &= np.isfinite(numbers)
    if check.at_least is not None:
        met &= numbers >= check.at_least
    if check.at_most is not None:
        met &= numbers <= check.at_most
    return met


def _field(value: Any, name: str, names: list[str]) -> Any:
    """A field of a struct, which comes as a dictionary or as the tuple of its values."""
    return value[name] if isinstance(value, dict) else value[names.index(name)]


def spark_rows(spark: SparkSession, frame: pd.DataFrame, contract: Contract) -> DataFrame:
    """The frame in Spark, with the types of the contract; ``id`` columns keep theirs."""
    types = _types(frame, contract)
    schema = ", ".join(f"`{name}` {type_}" for name, type_ in types.items())
    rows = frame[contract.column_names]
    if any("map<" in type_ or "struct<" in type_ for type_ in types.values()):
        # not every supported Spark takes these from a frame; the tables that have them are the smallest
        values = [[_plain(value) for value in row] for row in rows.astype(object).to_numpy().tolist()]
        return spark.createDataFrame(values, schema)
    return spark.createDataFrame(rows, schema)


def frame_types(frame: pd.DataFrame, contract: Contract) -> T.StructType:
    """The types that the frame has in the table.

    Raises:
        TableError: as :func:`~fm_spark.tables.shape.shape_of`.
    """
    return shape_of({name: parsed_type(type_) for name, type_ in _types(frame, contract).items()}, contract)


def _types(frame: pd.DataFrame, contract: Contract) -> dict[str, str]:
    return {c.name: _id_type(frame[c.name]) if c.type == ID else c.type for c in contract.columns}


def arrow_rows(frame: pd.DataFrame, types: T.StructType) -> pa.Table:
    """The checked frame as Arrow's columns; NaN is null, also in whole numbers.

    Args:
        types: the columns of the table, in order.
    """
    schema = arrow_schema(types)
    return pa.Table.from_arrays([_arrow(frame[field.name], field.type) for field in schema], schema=schema)


def _arrow(values: pd.Series[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_nested(type_):
        return pa.array([_nested(value, type_) for value in values], type_)
    return pa.array(values, type_, from_pandas=True)


def _nested(value: Any, type_: pa.DataType) -> Any:
    """A value as Arrow takes it: pairs for a map, dictionaries for structs."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if pa.types.is_map(type_):
        return [(key, _nested(inner, type_.item_type)) for key, inner in dict(value).items()]
    if pa.types.is_struct(type_):
        names = [field.name for field in type_]
        return {field.name: _nested(_field(value, field.name, names), field.type) for field in type_}
    if pa.types.is_list(type_):
        return [_nested(inner, type_.value_type) for inner in value] if pa.types.is_nested(type_.value_type) else value
    return value


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
