"""Query vectors of users: the machine's view of what a user has done so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fm_spark.core import history
from fm_spark.core.fm_machine import FmMachine, fm_queries
from fm_spark.core.machine import Machine
from fm_spark.core.sequences import Sequences

Ranker = Machine | FmMachine
"""What can rank: it has ``item_factors`` and ``item_bias``, and :func:`user_queries` makes queries for it."""


def user_queries(sequences: Sequences, machine: Ranker) -> npt.NDArray[np.float32]:
    """The query vector of every user after his last event.

    Returns:
        float32 [n_users, k]; zeros for a user without events.
    """
    if isinstance(machine, FmMachine):
        return fm_queries(sequences, machine)
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
