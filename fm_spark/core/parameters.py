"""The learnt arrays while training, in one row space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Parameters(NamedTuple):
    """Parameters and optimiser state of a ranker; row ``table * n_items + item``.

    Table ``2 d + liked`` holds the history vectors of decay d; the last table holds the composed item vectors (own
    vector plus those of the item's side features).

    Attributes:
        factors: float32 [n_tables * n_items, k].
        bias: float32 [n_items], composed item bias.
        factors_state: float64 [n_tables * n_items], per row the sum over steps of mean_f g^2.
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
    def n_tables(self) -> int:
        """History tables and the item table."""
        return len(self.factors_state) // max(1, len(self.bias))

    @property
    def item_factors(self) -> Floats:
        """View of the item table, float32 [n_items, k]."""
        return self.factors[-self.n_items :]

    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self)


INITIAL_STATE = 0.1


def init_parameters(n_decays: int, count: npt.NDArray[np.int64], k: int, init_std: float, seed: int) -> Parameters:
    """Starts factors from N(0, init_std^2) and biases from the items' log popularity.

    An item without positive events keeps a zero vector of its own, so that its side features alone speak for it.

    Args:
        count: int64 [n_items], positive training events of each item.
    """
    n_items = len(count)
    n_tables = 2 * n_decays + 1
    rng = np.random.Generator(np.random.Philox(key=seed))
    factors = rng.standard_normal((n_tables * n_items, k), dtype=np.float32) * np.float32(init_std)
    factors[-n_items:][count == 0] = 0.0
    bias = np.log((count + 1.0) / (count.sum() / max(1, n_items) + 1.0)).astype(np.float32)
    return Parameters(factors, bias, np.full(n_tables * n_items, INITIAL_STATE), np.full(n_items, INITIAL_STATE))
