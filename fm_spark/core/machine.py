"""The trained ranker as plain arrays, and the query vector of a user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core.context import NO_CONTEXT, ContextFields


class Machine(NamedTuple):
    """What ranking needs of a factorization machine; items in the order of the catalogue (ascending item_id).

    The score of item i for a query vector s_q is ``item_bias[i] + <s_q, item_factors[i]>`` (docs/mathematics.md):
    with more than one active feature on the item side, ``item_factors`` is the sum of their vectors and
    ``item_bias`` their linear weights plus the interactions among them.

    Attributes:
        decays: float64 [n_decays], time scales of the history bags.
        history: float32 [n_decays, 2, n_items, k], vectors of (decay, not liked / liked, item).
        item_factors: float32 [n_items, k].
        item_bias: float32 [n_items].
        context: the query's fields beside the history.
        context_factors: float32 [n_context, k]; None without such fields.
    """

    decays: npt.NDArray[np.float64]
    history: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]
    item_bias: npt.NDArray[np.float32]
    context: ContextFields = NO_CONTEXT
    context_factors: npt.NDArray[np.float32] | None = None

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.item_factors.shape[1])
