"""Small published runs, written without a JVM: what the readers' tests read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from fm_spark.tables import contracts as C

_STRUCT = pa.struct(
    [("gate", pa.string()), ("value", pa.float64()), ("limit", pa.float64()), ("passed", pa.bool_())]
)  # fmt: skip
_PART = pa.struct([("kind", pa.string()), ("item_id", pa.string()), ("value", pa.float64())])
_TYPES = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "array<string>": pa.list_(pa.string()),
    "array<double>": pa.list_(pa.float64()),
    "map<string,string>": pa.map_(pa.string(), pa.string()),
    "map<string,bigint>": pa.map_(pa.string(), pa.int64()),
    "map<string,double>": pa.map_(pa.string(), pa.float64()),
    "map<string, array<string>>": pa.map_(pa.string(), pa.list_(pa.string())),
    "array<struct<gate:string,value:double,limit:double,passed:boolean>>": pa.list_(_STRUCT),
    "array<struct<kind:string,item_id:string,value:double>>": pa.list_(_PART),
}
MINUTE = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)


def write(root: Path, contract: C.Contract, rows: Sequence[Mapping[str, Any]], without: Sequence[str] = ()) -> int:
    """Adds rows to a table of a contract and returns the new version; columns that a row leaves out are null."""
    schema = pa.schema(
        [(column.name, _type(column, rows)) for column in contract.columns if column.name not in without]
    )  # fmt: skip
    path = str(root / contract.name)
    mode = "overwrite" if contract.mode == "replace" else "append"
    write_deltalake(path, pa.Table.from_pylist([dict(row) for row in rows], schema), mode=mode, schema_mode="merge")
    return DeltaTable(path).version()


def write_lists(root: Path, run_id: str, lists: Mapping[Any, Sequence[Any]], list_name: str = "default") -> int:
    """Rows of ``top_n``: user -> items, best first."""
    rows = [
        {
            "run_id": run_id, "model_version": f"fm-{run_id}", "list_name": list_name, "user_id": user, "rank": rank,
            "item_id": item, "title": f"Item {item}", "score": 9.0 - rank, "source": "model",
        }
        for user, items in lists.items()
        for rank, item in enumerate(items, start=1)
    ]  # fmt: skip
    return write(root, C.TOP_N, rows)


def publish(root: Path, run_id: str, number: int, tables: Mapping[str, int], **other: Any) -> datetime:
    """One row of ``publications``, ``number`` hours after :data:`MINUTE`; returns that time."""
    at = MINUTE.replace(hour=MINUTE.hour + number)
    row = {
        "publication": number, "run_id": run_id, "model_version": f"fm-{run_id}", "published_at": at,
        "tables": list(tables.items()), "metrics": [("fm.ndcg_at_10", 0.1 * number)],
        "gates": [{"gate": "users", "value": 2.0, "limit": 1.0, "passed": True}], "input_versions": [("events", 0)],
        **other,
    }  # fmt: skip
    write(root, C.PUBLICATIONS, [row])
    return at


def _type(column: C.Column, rows: Sequence[Mapping[str, Any]]) -> pa.DataType:
    if column.type == C.ID:
        return pa.string() if any(isinstance(row.get(column.name), str) for row in rows) else pa.int64()
    return _TYPES[column.type]
