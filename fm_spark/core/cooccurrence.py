"""Neighbours by who liked them: the simplest thing that a machine's neighbours can be compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

# rows of a product that are held at once
_BLOCK = 256


def liked_together(likes: sparse.csr_matrix, asked: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int32]:
    """The ``n`` items with the largest cosine of co-occurrence, by (cosine descending, item ascending).

    cosine(i, j) = users who liked both / sqrt(users who liked i x users who liked j)

    Args:
        likes: CSR [n_users, n_items], 1 where the user liked the item.
        asked: int64 [n_asked], item indices.

    Returns:
        int32 [n_asked, n]; -1 where no further item was liked together with the asked-for one.
    """
    found = np.full((len(asked), n), -1, np.int32)
    of_item = likes.tocsc().astype(np.float64)
    users = np.asarray(of_item.sum(axis=0)).ravel()
    for first in range(0, len(asked), _BLOCK):
        block = asked[first : first + _BLOCK]
        both = (of_item[:, block].T @ likes).tocsr()
        for row, item in enumerate(block):
            own = slice(both.indptr[row], both.indptr[row + 1])
            others, count = both.indices[own], both.data[own]
            others, count = others[others != item], count[others != item]
            cosine = count / np.sqrt(users[item] * users[others])
            best = others[np.lexsort((others, -cosine))[:n]]
            found[first + row, : len(best)] = best
    return found
