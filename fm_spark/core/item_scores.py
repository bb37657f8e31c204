"""Users' scores of items, ``item_bias + queries @ item_factors.T``: the item side, tiles in float32, pairs in float64.

The lists that are chosen by these scores: :mod:`fm_spark.core.topk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import topk_kernels as kernels
from fm_spark.errors import DivergenceError

IntArray = npt.NDArray[np.int64]
ItemArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

# 256 users x 1,024 items in float32 are 1 MiB, one core's L2; with fewer users BLAS spends its time repacking items
USER_TILE = 256
ITEM_TILE = 1024
_FLOAT32_UNIT = 2.0**-24
_FLOAT32_TINY = 2.0**-126
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Items(NamedTuple):
    """The item side, checked and laid out for scoring; made by :func:`prepare_items`.

    Attributes:
        factors: float32 [n_items, k], contiguous.
        bias: float32 [n_items]; minus infinity for an item that must not be recommended.
        max_norm: largest Euclidean norm of a row of ``factors``.
        max_bias: largest absolute bias of an item that may be recommended.
    """

    factors: FloatArray
    bias: FloatArray
    max_norm: float
    max_bias: float

    @property
    def n_items(self) -> int:
        """Number of items, also those that must not be recommended."""
        return len(self.bias)


class UserItems(NamedTuple):
    """A set of items for each user: ``items[ptr[u]:ptr[u + 1]]``, item indices in ascending order.

    Attributes:
        ptr: int64 [n_users + 1].
        items: int32 [n_pairs].
    """

    ptr: IntArray
    items: ItemArray


def prepare_items(
    item_factors: npt.ArrayLike, item_bias: npt.ArrayLike, allowed: npt.NDArray[np.bool_] | None = None
) -> Items:
    """Checks the item side and lays it out for scoring.

    Args:
        item_factors: [n_items, k], used as float32.
        item_bias: [n_items], used as float32.
        allowed: bool [n_items], the items that may be recommended; ``None`` allows all.

    Raises:
        DivergenceError: a factor or a bias is not finite.
    """
    factors = np.ascontiguousarray(item_factors, dtype=np.float32)
    bias = np.array(item_bias, dtype=np.float32)
    finite = np.isfinite(bias) & np.isfinite(factors).all(axis=1)
    if not finite.all():
        raise DivergenceError(
            f"{np.count_nonzero(~finite)} of {len(bias)} items have parameters that are not finite, first the item of "
            f"index {int(np.argmin(finite))}; train again with a smaller train.learning_rate"
        )
    if allowed is not None:
        bias[~allowed] = -np.inf
    usable = np.abs(bias[np.isfinite(bias)])
    return Items(factors, bias, float(row_norms(factors).max(initial=0.0)), float(usable.max(initial=0.0)))


def restrict(items: Items, allowed: npt.NDArray[np.bool_]) -> Items:
    """The items of which only ``allowed`` (bool [n_items]) may be recommended; shares the factors."""
    bias = np.where(allowed, items.bias, np.float32(-np.inf))
    usable = np.abs(bias[np.isfinite(bias)])
    return items._replace(bias=bias, max_bias=float(usable.max(initial=0.0)))


def user_items(ptr: IntArray, items: ItemArray, keep: npt.NDArray[np.bool_] | None = None) -> UserItems:
    """The items of each user's events, sorted.

    Args:
        ptr: int64 [n_users + 1], user ``u`` owns ``items[ptr[u]:ptr[u + 1]]``.
        items: int32 [n_events], in any order.
        keep: bool [n_events], the events that count; ``None`` keeps all.
    """
    user = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    if keep is not None:
        user, items = user[keep], items[keep]
    counts = np.bincount(user, minlength=len(ptr) - 1)
    starts, ordered = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.array(items, dtype=np.int32)
    kernels.sort_within(starts, ordered)
    return UserItems(starts, ordered)


def no_items(n_users: int) -> UserItems:
    """An empty set for every user."""
    return UserItems(np.zeros(n_users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


def checked_queries(items: Items, queries: npt.ArrayLike, seen: UserItems | None) -> tuple[FloatArray, UserItems]:
    """The queries as float32 [n_users, k], and ``seen``, or an empty set for every user.

    Raises:
        ValueError: shapes that do not fit, or ``seen`` not in ascending order within a user.
    """
    q = np.ascontiguousarray(queries, dtype=np.float32)
    if q.ndim != 2 or q.shape[1] != items.factors.shape[1]:
        raise ValueError(f"queries of shape {q.shape} do not fit item factors of shape {items.factors.shape}")
    if seen is None:
        return q, no_items(len(q))
    if len(seen.ptr) != len(q) + 1 or not kernels.is_ascending(seen.ptr, seen.items, items.n_items):
        raise ValueError(f"seen must hold {len(q)} users with ascending items below {items.n_items}; see user_items()")
    return q, seen


def row_norms(vectors: FloatArray) -> DoubleArray:
    """The Euclidean norms of rows, in float64 without a copy of the rows in float64."""
    norms: DoubleArray = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def rounding_error(items: Items, queries: FloatArray) -> DoubleArray:
    """Bound on |float32 score - float64 score| for every user, whatever the order of summation; float64 [n_users].

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), eq. 3.5, with Cauchy-Schwarz.

    Raises:
        DivergenceError: a query is not finite or its scores may exceed float32.
    """
    size = row_norms(queries) * items.max_norm + items.max_bias
    bad = ~(size < _FLOAT32_MAX)
    if bad.any():
        raise DivergenceError(
            f"the scores of {np.count_nonzero(bad)} of {len(bad)} users are not finite, first the user of index "
            f"{int(np.argmax(bad))} of the block; train again with a smaller train.learning_rate"
        )
    terms = (items.factors.shape[1] + 3) * _FLOAT32_UNIT
    bound: DoubleArray = terms / (1.0 - terms) * size + items.factors.shape[1] * _FLOAT32_TINY
    return bound


def score_tiles(
    items: Items, queries: FloatArray, seen: UserItems, first: int, last: int
) -> Iterator[tuple[int, FloatArray]]:
    """Yields (first item, float32 scores [users, items] without bias) for the users ``first:last``, seen items at -inf.

    All tiles share one buffer: a tile is gone when the next one comes.
    """
    buffer = np.empty((last - first) * ITEM_TILE, dtype=np.float32)
    rows = np.arange(last - first)
    cursor = seen.ptr[first:last].copy()
    stop = seen.ptr[first + 1 : last + 1]
    for start in range(0, items.n_items, ITEM_TILE):
        tile = tile_product(queries[first:last], items.factors[start : start + ITEM_TILE], buffer)
        kernels.mask(tile, rows, start, cursor, stop, seen.items)
        yield start, tile


def tile_product(queries: FloatArray, factors: FloatArray, buffer: FloatArray) -> FloatArray:
    """The scores without bias, float32 [users, items], in a part of ``buffer``."""
    tile = buffer[: len(queries) * len(factors)].reshape(len(queries), len(factors))
    np.matmul(queries, factors.T, out=tile)
    return tile


def score_pairs(items: Items, queries: FloatArray, item: ItemArray) -> DoubleArray:
    """The float64 scores that lists are ordered by: ``<query, factors[i]> + bias[i]``, summed from the first factor on.

    Args:
        items: from :func:`prepare_items`.
        queries: float32 [n_users, k].
        item: int32 [n_users, m]; -1 gives minus infinity.
    """
    out = np.empty(item.shape, dtype=np.float64)
    kernels.score_pairs(items.factors, items.bias, queries, item, out)
    return out
