"""The exact nearest items of every item, by the kernel that ranks items for users: the queries are items.

The similarity of items i and j is the cosine of their vectors, or their inner product; what orders is

    score(i, j) = similarity(i, j) / max(count_j, 1)^discount.

Selection runs on scaled float32 vectors, the answer is that of the vectors themselves in float64: a list is accepted
only if no item left out can reach its end even with the largest error of the scaling, else the item is compared with
all others once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from fm_spark.core import topk_kernels as kernels
from fm_spark.core.item_scores import IntArray, ItemArray, Items, UserItems, prepare_items
from fm_spark.core.topk import Sorted, TopN, top_n

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

COSINE, INNER = "cosine", "inner"
# candidates beyond the list: with so many, on MovieLens, one item in thousands is compared with all others again
_SLACK = 8
# of x y with x and y rounded to float32, relative: two roundings and their product, generously
_SCALING_ERROR = 3.0 * 2.0**-24
_TINY = 2.0**-100


class Neighbourhood(NamedTuple):
    """The items that can be neighbours and those that ask, checked and laid out; made by :func:`neighbourhood`.

    Attributes:
        metric: ``cosine`` or ``inner``.
        vectors: float32 [n_items, k], of all items.
        unit: float64 [n_items], what makes the vectors comparable: 1 / length with ``cosine``, else 1; 0 for a vector
            of zeros.
        members: int32 [n_candidates], the items that can be neighbours, ascending.
        weight: float64 [n_candidates], 1 / max(count, 1)^discount.
        candidates: their vectors times unit times weight, for selecting.
    """

    metric: str
    vectors: Floats
    unit: Doubles
    members: ItemArray
    weight: Doubles
    candidates: Items


def neighbourhood(
    vectors: Floats, allowed: Flags, count: IntArray, metric: str = COSINE, discount: float = 0.0
) -> Neighbourhood:
    """Lays out the items for :func:`nearest_items`.

    Args:
        vectors: float32 [n_items, k].
        allowed: bool [n_items], the items that can be neighbours; one with a vector of zeros never is.
        count: int64 [n_items], events of each item.
        discount: the power of the count that a similarity is divided by; 0 for none.

    Raises:
        DivergenceError: a vector is not finite.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    says = length != 0  # also where it is not a number, which is refused below
    unit = says.astype(np.float64)
    if metric == COSINE:
        np.divide(1.0, length, out=unit, where=says)
    index = np.flatnonzero(allowed & says).astype(np.int32)
    weight = np.maximum(count[index], 1).astype(np.float64) ** -discount
    scaled = (vectors[index] * (unit[index] * weight)[:, None]).astype(np.float32)
    return Neighbourhood(metric, vectors, unit, index, weight, prepare_items(scaled, np.zeros(len(index))))


def nearest_items(around: Neighbourhood, asked: IntArray, n: int, ordered: Sorted | None = None) -> TopN:
    """The ``n`` nearest items of each asked-for item, without itself, by (score descending, item index ascending).

    An item with a vector of zeros gets an empty list; where fewer than ``n`` items can be neighbours, lists are
    shorter.

    Args:
        asked: int64 [n_asked], item indices, each once.
        n: length of the lists, at least 1.
        ordered: the candidates in order (:func:`~fm_spark.core.topk.sort_items`), made once for many calls.

    Raises:
        ValueError: n < 1.
        DivergenceError: the scores would leave the range of float32.
    """
    vectors, unit = around.vectors[asked], around.unit[asked]
    queries = (vectors * unit[:, None]).astype(np.float32)
    wanted = n + _SLACK
    rough = top_n(around.candidates, queries, wanted, _own_place(around, asked), ordered)
    item, score = _in_order(rough.item, similarities(around, asked, rough.item)[1], n)
    # whoever is not among the rough ones has at most the rough score of the last of them
    bound = _SCALING_ERROR * np.linalg.norm(queries.astype(np.float64), axis=1) * around.candidates.max_norm + _TINY
    more = rough.size == wanted
    doubtful = more & (score[:, n - 1] <= np.where(more, rough.score[:, -1], -np.inf) + bound)
    for row in np.flatnonzero(doubtful):
        everything = np.arange(len(around.members), dtype=np.int32)[None, :]
        everything[0, around.members == asked[row]] = -1
        whole = similarities(around, asked[row : row + 1], everything)[1]
        item[row], score[row] = (part[0] for part in _in_order(everything, whole, n))
    silent = unit == 0
    item[silent] = -1
    there = item >= 0
    found = np.where(there, around.members[item], -1).astype(np.int32) if len(around.members) else item
    return TopN(found, np.where(there, score, np.nan), np.count_nonzero(there, axis=1))


def similarities(around: Neighbourhood, asked: IntArray, place: ItemArray) -> tuple[Doubles, Doubles]:
    """The similarities and the scores of pairs, float64 [n_asked, m] each; minus infinity where the place is -1.

    Args:
        asked: int64 [n_asked], item indices.
        place: int32 [n_asked, m], places in ``around.members``; -1 for none.
    """
    similarity = np.full(place.shape, -np.inf)
    if len(around.members) == 0:
        return similarity, similarity
    item = np.where(place >= 0, around.members[place], -1).astype(np.int32)
    no_bias = np.zeros(len(around.vectors), np.float32)
    kernels.score_pairs(around.vectors, no_bias, around.vectors[asked], item, similarity)
    similarity[item < 0] = 0.0
    similarity *= around.unit[asked][:, None] * around.unit[item]
    if around.metric == COSINE:
        np.clip(similarity, -1.0, 1.0, out=similarity)  # parallel vectors may come out above 1 by a rounding
    score = similarity * around.weight[place]
    similarity[item < 0] = score[item < 0] = -np.inf
    return similarity, score


def _own_place(around: Neighbourhood, asked: IntArray) -> UserItems:
    """The place of every asked-for item among the candidates, where it has one."""
    place = np.minimum(np.searchsorted(around.members, asked), max(len(around.members) - 1, 0))
    there = around.members[place] == asked if len(around.members) else np.zeros(len(asked), np.bool_)
    return UserItems(np.concatenate([[0], np.cumsum(there)]).astype(np.int64), place[there].astype(np.int32))


def _in_order(place: ItemArray, score: Doubles, n: int) -> tuple[ItemArray, Doubles]:
    """The first ``n`` of each row by (score descending, place ascending), as wide as ``n``."""
    order = np.lexsort((place, -score), axis=1)[:, :n]
    wide = ((0, 0), (0, n - order.shape[1]))
    return (
        np.pad(np.take_along_axis(place, order, axis=1), wide, constant_values=-1),
        np.pad(np.take_along_axis(score, order, axis=1), wide, constant_values=-np.inf),
    )


class NameSets(NamedTuple):
    """A set of names for each item, for example genres: ``names[ptr[i]:ptr[i + 1]]``, numbers in ascending order.

    Attributes:
        ptr: int64 [n_items + 1].
        names: int32 [n_names in all].
    """

    ptr: IntArray
    names: ItemArray


def name_sets(of_items: Sequence[Sequence[str]]) -> NameSets:
    """Numbers the names; of each item every name counts once."""
    number = {name: place for place, name in enumerate(sorted({name for own in of_items for name in own}))}
    sets = [sorted({number[name] for name in own}) for own in of_items]
    ptr = np.concatenate([[0], np.cumsum([len(own) for own in sets])]).astype(np.int64)
    return NameSets(ptr, np.array([name for own in sets for name in own], dtype=np.int32))


def common_names(sets: NameSets, one: ItemArray, other: ItemArray) -> npt.NDArray[np.int8]:
    """Whether the items of each pair have a name in common: 1, 0, or -1 where one of them has no names; int8 [n].

    Args:
        one: int32 [n], item indices; other: int32 [n].
    """
    out = np.empty(len(one), np.int8)
    _common_names(sets.ptr, sets.names, one, other, out)
    return out


@numba.njit(cache=True, nogil=True)
def _common_names(ptr: IntArray, names: ItemArray, one: ItemArray, other: ItemArray, out: npt.NDArray[np.int8]) -> None:
    for pair in range(len(one)):
        a, a_end = ptr[one[pair]], ptr[one[pair] + 1]
        b, b_end = ptr[other[pair]], ptr[other[pair] + 1]
        out[pair] = -1 if a == a_end or b == b_end else 0
        while a < a_end and b < b_end:
            if names[a] == names[b]:
                out[pair] = 1
                break
            if names[a] < names[b]:
                a += 1
            else:
                b += 1
