"""The state of a run's fits as named arrays and JSON, and back: nothing is pickled, every bit survives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fm_spark.training.learner import Array, Learnt
from fm_spark.training.rounds import RoundRecord
from fm_spark.training.trainer import Best, FitState, HistoryRow

Restore = Callable[[Mapping[str, Array]], Learnt]
"""Makes what a fit has learnt from the arrays that it named (:meth:`~fm_spark.training.learner.Learnt.arrays`)."""
# raised when the layout changes: a checkpoint of another layout is not continued
LAYOUT = 1


def describe_states(states: Mapping[str, FitState]) -> dict[str, Any]:
    """All of the states but their arrays, for JSON."""
    return {name: _describe(state) for name, state in states.items()}


def arrays_of(states: Mapping[str, FitState]) -> dict[str, Array]:
    """The states' arrays by name, for example ``publish/best/factors``; no copies."""
    arrays: dict[str, Array] = {}
    for name, state in states.items():
        arrays |= {f"{name}/now/{field}": array for field, array in state.learnt.arrays().items()}
        if state.best is not None:
            arrays |= {f"{name}/best/{field}": array for field, array in state.best.learnt.arrays().items()}
    return arrays


def restore_states(described: Mapping[str, Any], arrays: Mapping[str, Array], restore: Restore) -> dict[str, FitState]:
    """The states that :func:`describe_states` and :func:`arrays_of` came from.

    Raises:
        KeyError: an array is missing.
    """
    return {name: _restore(name, values, arrays, restore) for name, values in described.items()}


def digest(meta: bytes, arrays: Mapping[str, Array]) -> str:
    """The sha256 of a checkpoint: of the JSON and of the arrays' names, types, shapes and bytes."""
    total = hashlib.sha256(meta)
    for name in sorted(arrays):
        array = arrays[name]
        total.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def to_json(values: Any) -> bytes:
    """JSON with sorted keys; numpy's numbers become plain ones, and floats come back with the same bits."""
    return json.dumps(values, sort_keys=True, default=lambda value: value.item()).encode()


def _describe(state: FitState) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "round": state.round,
        "retries": state.retries,
        "best": None if state.best is None else {"epoch": state.best.epoch, "metrics": state.best.metrics},
        "history": [asdict(row) for row in state.history],
    }


def _restore(name: str, values: Mapping[str, Any], arrays: Mapping[str, Array], restore: Restore) -> FitState:
    best = values["best"]
    return FitState(
        restore(_under(f"{name}/now/", arrays)),
        values["epoch"],
        values["round"],
        values["retries"],
        Best(restore(_under(f"{name}/best/", arrays)), best["epoch"], best["metrics"]) if best else None,
        [HistoryRow(**{**row, "record": RoundRecord(**row["record"])}) for row in values["history"]],
    )


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
