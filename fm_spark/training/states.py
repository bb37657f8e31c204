"""The state of a run's fits as named arrays and JSON, and back: nothing is pickled, every bit survives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fm_spark.core.parameters import Parameters
from fm_spark.core.side import SideFeatures
from fm_spark.training.rounds import RoundRecord
from fm_spark.training.trainer import Best, FitState, HistoryRow

Array = npt.NDArray[Any]
# raised when the layout changes: a checkpoint of another layout is not continued
LAYOUT = 1


def describe_states(states: Mapping[str, FitState]) -> dict[str, Any]:
    """All of the states but their arrays, for JSON."""
    return {name: _describe(state) for name, state in states.items()}


def arrays_of(states: Mapping[str, FitState]) -> dict[str, Array]:
    """The states' arrays by name, for example ``publish/best/factors``; no copies."""
    arrays: dict[str, Array] = {}
    for name, state in states.items():
        arrays |= _learnt(f"{name}/now", state.parameters, state.side)
        if state.best is not None:
            arrays |= _learnt(f"{name}/best", state.best.parameters, state.best.side)
    return arrays


def restore_states(
    described: Mapping[str, Any], arrays: Mapping[str, Array], side: sparse.csr_matrix | None
) -> dict[str, FitState]:
    """The states that :func:`describe_states` and :func:`arrays_of` came from.

    Args:
        side: float32 CSR [n_items, n_side], which item has which side feature; it follows from the items table and
            is not part of a state.

    Raises:
        KeyError: an array is missing.
    """
    return {name: _restore(name, values, arrays, side) for name, values in described.items()}


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


def _restore(
    name: str, values: Mapping[str, Any], arrays: Mapping[str, Array], side: sparse.csr_matrix | None
) -> FitState:
    best = values["best"]
    parameters, learnt = _relearnt(f"{name}/now", arrays, side)
    return FitState(
        parameters,
        learnt,
        values["epoch"],
        values["round"],
        values["retries"],
        Best(*_relearnt(f"{name}/best", arrays, side), best["epoch"], best["metrics"]) if best else None,
        [HistoryRow(**{**row, "record": RoundRecord(**row["record"])}) for row in values["history"]],
    )


def _learnt(prefix: str, parameters: Parameters, side: SideFeatures | None) -> dict[str, Array]:
    arrays: dict[str, Array] = {f"{prefix}/{field}": array for field, array in parameters._asdict().items()}
    if side is not None:
        arrays |= {f"{prefix}/side_factors": side.factors, f"{prefix}/side_bias": side.bias}
    return arrays


def _relearnt(
    prefix: str, arrays: Mapping[str, Array], x: sparse.csr_matrix | None
) -> tuple[Parameters, SideFeatures | None]:
    parameters = Parameters(*(arrays[f"{prefix}/{field}"] for field in Parameters._fields))
    if x is None or f"{prefix}/side_factors" not in arrays:
        return parameters, None
    return parameters, SideFeatures(x, arrays[f"{prefix}/side_factors"], arrays[f"{prefix}/side_bias"])
