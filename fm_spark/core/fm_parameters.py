"""The learnt arrays of a factorization machine over events, in one row space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core.fm_events import Fields, Floats


class FmParameters(NamedTuple):
    """Parameters of y(x) = w0 + <w, x> + sum_{i<j} <v_i, v_j> x_i x_j.

    Attributes:
        factors: float32 [n_rows, k], v.
        linear: float32 [n_rows + 1], w, and w0 in the last place.

    Source:
        Rendle 2010, "Factorization machines", eq. 1.
    """

    factors: Floats
    linear: Floats

    @property
    def w0(self) -> float:
        """The constant term."""
        return float(self.linear[-1])

    def copy(self) -> FmParameters:
        """The same numbers in arrays of their own."""
        return FmParameters(self.factors.copy(), self.linear.copy())

    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.factors.nbytes + self.linear.nbytes


def init_fm(fields: Fields, k: int, init_std: float, w0: float, seed: int) -> FmParameters:
    """Starts factors from N(0, init_std^2), the bag's factors and all linear weights from zero, w0 as given.

    Args:
        w0: the weighted mean label for ``squared``, its log-odds for ``logistic``, 0 for ``bpr``.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    factors = rng.standard_normal((fields.n_rows, k), dtype=np.float32) * np.float32(init_std)
    factors[fields.bag_offset :] = 0.0
    linear: npt.NDArray[np.float32] = np.zeros(fields.n_rows + 1, np.float32)
    linear[-1] = w0
    return FmParameters(factors, linear)
