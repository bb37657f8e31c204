"""The commit that makes an empty table, without Spark.

No single write of rows can say which columns are never null, and delta-rs makes no table with properties of our own.
Source: Delta transaction log protocol, "Change Metadata", "Protocol Evolution", "Commit Provenance Information".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyspark.sql import types as T

from fm_spark.tables.contracts import Contract

_CHANGE_FEED = "delta.enableChangeDataFeed"
_CHECKS = "delta.constraints."


def commit_empty(
    folder: Path, contract: Contract, types: T.StructType, properties: Mapping[str, str], note: str
) -> None:
    """Makes version 0 of the table, in one step; leaves a table that is there as it is.

    Args:
        types: the columns, with NOT NULL and comments.
        note: the commit's ``userMetadata``.
    """
    log = folder / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    actions = _actions(contract, types, properties, note)
    made, place = log / f".{uuid4()}.tmp", log / f"{0:020d}.json"
    try:
        with made.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(action, separators=(',', ':'))}\n" for action in actions)
            file.flush()
            os.fsync(file.fileno())
        # a link is refused where a file is there already: of two writers one makes the version
        os.link(made, place)
    except FileExistsError:
        return
    finally:
        made.unlink(missing_ok=True)


def _actions(
    contract: Contract, types: T.StructType, properties: Mapping[str, str], note: str
) -> list[dict[str, dict[str, Any]]]:
    now = int(time.time() * 1000)
    features = ["appendOnly", "invariants"]
    if any(name.startswith(_CHECKS) for name in properties):
        features.append("checkConstraints")
    if properties.get(_CHANGE_FEED) == "true":
        features.append("changeDataFeed")
    shown = {
        "partitionBy": json.dumps(list(contract.partitions), separators=(",", ":")),
        "clusterBy": "[]",
        "description": contract.comment,
        "isManaged": "false",
        "properties": json.dumps(dict(properties)),
    }
    info = {
        "timestamp": now,
        "operation": "CREATE TABLE",
        "operationParameters": shown,
        "isolationLevel": "Serializable",
        "isBlindAppend": True,
        "operationMetrics": {},
        "userMetadata": note,
    }
    metadata = {
        "id": str(uuid4()),
        "description": contract.comment,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": types.json(),
        "partitionColumns": list(contract.partitions),
        "configuration": dict(properties),
        "createdTime": now,
    }
    protocol = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}
    return [{"commitInfo": info}, {"metaData": metadata}, {"protocol": protocol}]
