"""A run whose right ranking is known: items of two tastes on a checkerboard, users who like one taste only.

The machine scores an item 5 x (length of the user's history of its taste) - place / 100, so every user ranks the items
of his taste by item id, then those of the other taste by item id.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from small_run import frame

from fm_spark.config import Config, load_config
from fm_spark.tables import contracts as C
from fm_spark.tables.store import TableStore

RUN, MODEL = "taste", "fm-taste"
N_ITEMS, N_USERS = 40, 12
ITEMS = [100 + place for place in range(N_ITEMS)]
GREEDY, UNTESTED = 50, 51  # has an event with every item; has no held-out event
START = datetime(2020, 1, 1, tzinfo=UTC)


def histories() -> dict[int, list[int]]:
    """Item ids of every user in the order of time; the last one of the first twelve users is held out."""
    made = {u: [ITEMS[u % 2 + 2 * ((u // 2 + 3 * j) % 20)] for j in range(6)] for u in range(N_USERS)}
    return made | {GREEDY: ITEMS, UNTESTED: ITEMS[:2]}


def split(user: int, position: int) -> str:
    """The part of an event."""
    return "test" if user < N_USERS and position == 5 else "train"


def expected_ranking(known: list[int], hidden: list[int]) -> list[int]:
    """All items but the hidden ones, as the machine ranks them for a user whose newest item counts most."""
    taste = known[-1] % 2
    return sorted(set(ITEMS) - set(hidden), key=lambda item: (item % 2 != taste, item))


def with_text_ids(items: pa.Table) -> pa.Table:
    """The rows of ``items`` with ids that are text: i100 for 100."""
    ids = pa.array([f"i{item}" for item in items["item_id"].to_pylist()])
    return items.set_column(items.column_names.index("item_id"), "item_id", ids)


def write_taste_run(spark: SparkSession, root: str) -> Config:
    """Writes events, items and both models; returns the configuration of the run."""
    config = load_config(overrides=[f"tables.root='{root}'", f"run.id='{RUN}'", "recommend.n=10"])
    store = TableStore(spark, root)
    versions = {
        C.EVENTS.name: store.write(frame(spark, C.EVENTS, event_rows(histories())), C.EVENTS, RUN),
        C.ITEMS.name: store.write(frame(spark, C.ITEMS, item_rows()), C.ITEMS, RUN),
    }
    parameters = [row for version in (MODEL, f"{MODEL}-eval") for row in _parameters(version)]
    store.write(frame(spark, C.FM_PARAMETERS, parameters), C.FM_PARAMETERS, RUN)
    models = [_model(MODEL, "publish", versions, config), _model(f"{MODEL}-eval", "evaluation", versions, config)]
    store.write(frame(spark, C.FM_MODEL, models), C.FM_MODEL, RUN)
    return config


def with_recommend(config: Config, **changes: Any) -> Config:
    """The configuration with other settings of the lists."""
    return replace(config, recommend=replace(config.recommend, **changes))


def event_rows(of_users: dict[int, list[int]], run: str = RUN) -> list[dict[str, Any]]:
    """Events of users with these items in the order of time."""
    return [
        {
            "user_id": user, "item_id": item, "time": START + timedelta(days=position), "value": 5.0, "label": 1.0,
            "weight": 1.0, "split": split(user, position), "position": position, "item_feature": 2 * (item - 100),
            "indices": [2 * (item - 100)], "values": [1.0], "run_id": run,
        }
        for user, items in of_users.items()
        for position, item in enumerate(items)
    ]  # fmt: skip


def item_rows(later: tuple[int, ...] = (), run: str = RUN) -> list[dict[str, Any]]:
    """The catalogue, and items that come later."""
    events = [item for items in histories().values() for item in items]
    return [
        {
            "item_id": item, "title": f"Film {item}", "genres": [["Even", "Odd"][item % 2], "All"], "year": 2000,
            "tags": ["quiet"] if item % 2 else [], "item_feature": 2 * (item - 100), "count": events.count(item),
            "attributes": {}, "run_id": run,
        }
        for item in (*ITEMS, *later)
    ]  # fmt: skip


def _parameters(version: str) -> list[dict[str, Any]]:
    rows = []
    for place, item in enumerate(ITEMS):
        own = [float(item % 2 == 0), float(item % 2 == 1)]
        vectors = {"item": own, "history_liked_0.5": [5 * v for v in own], "history_not_liked_0.5": [0.0, 0.0]}
        for number, (field, vector) in enumerate(vectors.items()):
            rows.append(
                {
                    "model_version": version, "field": field, "value": str(item), "feature": 3 * place + number,
                    "bias": -place / 100 if field == "item" else 0.0, "factors": vector, "count": 1, "run_id": RUN,
                }
            )  # fmt: skip
    return rows


def _model(version: str, purpose: str, versions: dict[str, int], config: Config) -> dict[str, Any]:
    return {
        "model_version": version, "run_id": RUN, "created_at": START, "purpose": purpose, "loss": "softmax", "k": 2,
        "w0": 0.0, "epochs": 1, "decays": [0.5], "hyperparameters": {}, "metrics": {}, "input_versions": versions,
        "library_versions": {}, "config": config.to_json(),
    }  # fmt: skip
