"""Checkpoints: the state of the whole train job in one commit, the last two kept, the newest good one continued."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from fm_spark.config import Config
from fm_spark.errors import TableError
from fm_spark.tables.contracts import CHECKPOINTS
from fm_spark.tables.local import Where
from fm_spark.tables.store import TableStore
from fm_spark.training.learner import Array
from fm_spark.training.states import LAYOUT, Restore, arrays_of, describe_states, digest, restore_states, to_json
from fm_spark.training.trainer import FitState

T = TypeVar("T")
Values = Mapping[str, Any]
log = logging.getLogger("fm_spark.train")

PART_BYTES = 32 * 2**20
META = "meta"
# files of checkpoints that were replaced more than kept_hours ago are deleted once in so many saves
_SWEEP_EVERY = 12
# keys of [train] that change when training stops and goes on, not what it computes
_FREE = ("checkpoint_rounds", "checkpoint_minutes", "retry_diverged")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as it was read: whole, and with the sha256 that it was saved with."""

    number: int
    fingerprint: dict[str, str]
    fits: dict[str, Any]
    arrays: dict[str, Array]


def fingerprint(
    run_id: str, config: Config, events: str, catalogue: str, libraries: Mapping[str, str]
) -> dict[str, str]:
    """What must be equal for a checkpoint to be continued: everything that the parameters follow from.

    Args:
        events, catalogue: digests of the data; libraries: versions by name.
    """
    settings = {
        f"{section}.{key}": json.dumps(value)
        for section, keys in (("train", asdict(config.train)), ("events", asdict(config.events)))
        for key, value in keys.items()
        if not (section == "train" and key in _FREE)
    }
    data = {"run": run_id, "the events": events, "the items": catalogue, "the layout": str(LAYOUT)}
    return {**data, **settings, **{f"the version of {name}": value for name, value in libraries.items()}}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        every: rounds and minutes after which to save again; 0 = never.
        restore: makes what a fit of the run has learnt from its arrays.
    """

    def __init__(
        self,
        store: TableStore,
        run_id: str,
        own: Mapping[str, str],
        every: tuple[int, float],
        restore: Restore,
    ) -> None:
        self._store, self._run_id, self._own, self._restore = store, run_id, dict(own), restore
        self._every_rounds, self._every_seconds = every[0], 60 * every[1]
        self._number, self._rounds, self._saved_at = 0, 0, time.monotonic()

    def newest(self) -> dict[str, FitState]:
        """The states of the newest checkpoint that is whole and of this very run; empty when there is none."""
        if not self._store.exists(CHECKPOINTS):
            return {}
        numbers = {slot: self._try(slot, self._number_in) for slot in (0, 1)}
        self._number = max([self._number, *(number for number in numbers.values() if number)])
        for slot in sorted((slot for slot in numbers if numbers[slot]), key=lambda slot: -(numbers[slot] or 0)):
            checkpoint = self._try(slot, self._load)
            if checkpoint is None:
                continue
            differences = _differences(checkpoint.fingerprint, self._own)
            if not differences:
                log.info("continuing run %s from checkpoint %d", self._run_id, checkpoint.number)
                return restore_states(checkpoint.fits, checkpoint.arrays, self._restore)
            number = checkpoint.number
            log.info("checkpoint %d of run %s is not for this training: %s", number, self._run_id, differences)
        if self._number:
            log.info("no checkpoint of run %s to continue from; training starts afresh", self._run_id)
        return {}

    def after_round(self, states: Mapping[str, FitState]) -> None:
        """Counts a round, and saves when it is time."""
        self._rounds += 1
        by_rounds = self._every_rounds and self._rounds >= self._every_rounds
        by_time = self._every_seconds and time.monotonic() - self._saved_at >= self._every_seconds
        if by_rounds or by_time:
            self.save(states)

    def save(self, states: Mapping[str, FitState]) -> None:
        """Commits the states as the next checkpoint, in the place of the last but one.

        Raises:
            TableError: the table cannot be written; the earlier checkpoints are untouched.
        """
        begin = time.monotonic()
        number = self._number + 1
        arrays = arrays_of(states)
        meta = to_json({"number": number, "fingerprint": self._own, "fits": describe_states(states)})
        slot = number % 2
        rows = pd.DataFrame(_rows(meta, arrays), columns=["name", "part", "dtype", "shape", "payload"])
        rows = rows.assign(
            run_id=self._run_id, slot=slot, number=number, sha256=digest(meta, arrays), saved_at=datetime.now(UTC)
        )
        self._store.write(rows, CHECKPOINTS, self._run_id, only={"slot": slot})
        self._number, self._rounds, self._saved_at = number, 0, time.monotonic()
        megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
        log.info("checkpoint %d: %.1f MB in %.1f s", number, megabytes, self._saved_at - begin)
        if number % _SWEEP_EVERY == 0:
            self._store.sweep(CHECKPOINTS)

    def clear(self) -> None:
        """Removes the run's checkpoints: its models are saved."""
        if self._number:
            self._store.remove_run(CHECKPOINTS, self._run_id)
            self._store.sweep(CHECKPOINTS)
            self._number = 0

    def _try(self, slot: int, read: Callable[[Where], T | None]) -> T | None:
        """Reads from the rows of a slot; None when there are none, or when they are damaged."""
        try:
            return read({"run_id": self._run_id, "slot": slot})
        except (TableError, PySparkException, Py4JError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("the checkpoint in slot %d of run %s is damaged and left out: %s", slot, self._run_id, reason)
            self._number = max(self._number, 1)
            return None

    def _number_in(self, of_slot: Where) -> int | None:
        number = self._store.one(CHECKPOINTS, "number", where=of_slot)
        return None if number is None else int(number)

    def _load(self, of_slot: Where) -> Checkpoint:
        return _whole(self._store.each(CHECKPOINTS, ("name", "part", "dtype", "shape", "payload", "sha256"), of_slot))


def _rows(meta: bytes, arrays: Mapping[str, Array]) -> Iterator[tuple[str, int, str, list[int], bytes]]:
    everything: dict[str, Array] = {META: np.frombuffer(meta, np.uint8), **arrays}
    for name, array in everything.items():
        stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        payload = stored.reshape(-1).view(np.uint8).data
        for part, begin in enumerate(range(0, max(1, len(payload)), PART_BYTES)):
            yield name, part, stored.dtype.str, list(stored.shape), bytes(payload[begin : begin + PART_BYTES])


def _whole(rows: Iterable[Values]) -> Checkpoint:
    """Puts the arrays together.

    Raises:
        ValueError: a part is missing or a byte is another one than when it was saved.
        KeyError: there is no meta row.
    """
    parts: dict[str, list[Values]] = {}
    for row in rows:
        parts.setdefault(row["name"], []).append(row)
    first = next(iter(parts.values()))[0]
    arrays = {name: _joined(parts[name]) for name in parts}
    meta = arrays.pop(META).tobytes()
    if digest(meta, arrays) != first["sha256"]:
        raise ValueError(f"its sha256 is not {first['sha256']}")
    values = json.loads(meta)
    return Checkpoint(values["number"], values["fingerprint"], values["fits"], arrays)


def _joined(rows: list[Values]) -> Array:
    payload = bytearray().join(row["payload"] for row in sorted(rows, key=lambda row: int(row["part"])))
    return np.frombuffer(payload, np.dtype(rows[0]["dtype"])).reshape(rows[0]["shape"])


def _differences(saved: Mapping[str, str], own: Mapping[str, str], shown: int = 5) -> str:
    """What differs, in words; "" when nothing does."""
    keys = [key for key in {**saved, **own} if saved.get(key) != own.get(key)]
    told = [f"{key} was {saved.get(key)} and is {own.get(key)}" for key in keys[:shown]]
    return ", ".join(told) + (f", and {len(keys) - shown} more" if len(keys) > shown else "")
