"""The learnt arrays while training, in one row space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Parameters(NamedTuple):
    """Parameters and optimiser state of a ranker.

    First come the history tables: row ``(2 d + liked) * n_items + item`` holds the history vector of decay d. Then come
    the rows of the context, where there are any, and last the composed item vectors (own vector plus those of the
    item's side features).

    Attributes:
        factors: float32 [2 n_decays n_items + n_context + n_items, k].
        bias: float32 [n_items], composed item bias.
        factors_state: float64 [rows], per row the sum over steps of mean_f g^2.
        bias_state: float64 [n_items]; with Adam both as in :func:`fm_spark.core.optimisers.row_state`.
    """

    factors: Floats
    bias: Floats
    factors_state: Doubles
    bias_state: Doubles

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.bias)

    @property
    def item_factors(self) -> Floats:
        """View of the item table, float32 [n_items, k]."""
        return self.factors[-self.n_items :]

    def history(self, n_decays: int) -> Floats:
        """View of the history tables, float32 [n_decays, 2 (not liked, liked), n_items, k]."""
        rows = context_offset(n_decays, self.n_items)
        return self.factors[:rows].reshape(n_decays, 2, self.n_items, self.factors.shape[1])

    def context(self, n_decays: int) -> Floats:
        """View of the context rows, float32 [n_context, k]."""
        return self.factors[context_offset(n_decays, self.n_items) : len(self.factors) - self.n_items]

    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self)


INITIAL_STATE = 0.1


def context_offset(n_decays: int, n_items: int) -> int:
    """First row of the context."""
    return 2 * n_decays * n_items


def init_parameters(
    n_decays: int,
    count: npt.NDArray[np.int64],
    k: int,
    init_std: float,
    seed: int,
    context: npt.NDArray[np.int64] | None = None,
) -> Parameters:
    """Starts factors from N(0, init_std^2) and biases from the items' log popularity.

    An item without positive events keeps a zero vector of its own, so that its side features alone speak for it; a
    context row without them keeps one too, and stands for nothing.

    Args:
        count, context: int64 [n_items], [n_context], positive training events of each item and context row.
    """
    n_items = len(count)
    n_tables = 2 * n_decays + 1
    rng = np.random.Generator(np.random.Philox(key=seed))
    factors = rng.standard_normal((n_tables * n_items, k), dtype=np.float32) * np.float32(init_std)
    factors[-n_items:][count == 0] = 0.0
    if context is not None:
        own = rng.standard_normal((len(context), k), dtype=np.float32) * np.float32(init_std)
        own[context == 0] = 0.0
        factors = np.concatenate([factors[:-n_items], own, factors[-n_items:]])
    bias = np.log((count + 1.0) / (count.sum() / max(1, n_items) + 1.0)).astype(np.float32)
    return Parameters(factors, bias, np.full(len(factors), INITIAL_STATE), np.full(n_items, INITIAL_STATE))
