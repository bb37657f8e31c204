"""Query vectors of users: the machine's view of what a user has done so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fm_spark.core import history
from fm_spark.core.context import add_features, first_features
from fm_spark.core.fm_machine import FmMachine, fm_queries
from fm_spark.core.machine import Machine
from fm_spark.core.sequences import Sequences

Ranker = Machine | FmMachine
"""What can rank: it has ``item_factors`` and ``item_bias``, and :func:`user_queries` makes queries for it."""


def user_queries(sequences: Sequences, machine: Ranker, asked: Sequences | None = None) -> npt.NDArray[np.float32]:
    """The query vector of every user after his last event.

    Args:
        asked: events of the same users that the queries are for: the first of each user gives the query its context.
            Not read by a machine without context fields.

    Returns:
        float32 [n_users, k]; without context zeros for a user without events.

    Raises:
        ValueError: the machine has context fields, and ``asked`` does not hold them.
    """
    out = fm_queries(sequences, machine) if isinstance(machine, FmMachine) else _history_queries(sequences, machine)
    if machine.context_factors is not None:
        if asked is None or asked.context is None:
            raise ValueError("the machine has context fields, and the events that the queries are for lack them")
        unseen = machine.context.offsets[: len(machine.context.time)]
        add_features(machine.context_factors, first_features(asked.context, asked.ptr, unseen), out)
    return out


def _history_queries(sequences: Sequences, machine: Machine) -> npt.NDArray[np.float32]:
    n_users = sequences.n_users
    out = np.empty((n_users, machine.k), dtype=np.float32)
    history.forward(
        machine.history.reshape(-1, machine.k),
        len(machine.item_bias),
        machine.decays,
        history.windows(machine.decays),
        sequences.item,
        sequences.liked,
        np.arange(n_users + 1, dtype=np.int64),
        sequences.ptr[:-1],
        sequences.ptr[1:],
        out,
    )
    return out
