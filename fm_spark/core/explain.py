"""What the score of an item is made of: its bias, the past items that pushed it most, its side features, the rest.

The query is a sum over features, so the score is a sum over the pairs of a feature of the query with the item, plus
what the item brings itself: nothing is approximated, and the parts add up to the score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fm_spark.core import history
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
PUSHES = 3


class Parts(NamedTuple):
    """The parts of the scores of one user's items; they add up to the score.

    Attributes:
        bias: float64 [n], the items' own linear weights.
        side: float64 [n], linear weights of the items' side features, and the pairs among an item's features.
        event: int64 [n, PUSHES], places in the history of the events that pushed most, best first; -1 for none.
        push: float64 [n, PUSHES], what they added; never negative, 0 where there is none.
        rest: float64 [n], the other events, the user's own row and the context.
    """

    bias: DoubleArray
    side: DoubleArray
    event: npt.NDArray[np.int64]
    push: DoubleArray
    rest: DoubleArray


def history_terms(machine: Ranker, item: npt.NDArray[np.int32], liked: npt.NDArray[np.uint8]) -> FloatArray:
    """What each event of one user adds to his query, float32 [n_events, k]; zero for one that is too long ago to count.

    Args:
        item, liked: his events in the order of time, items of the catalogue only.
    """
    if isinstance(machine, Machine):
        return _decayed_terms(machine, item, liked)
    if not machine.fields.n_bag:
        return np.zeros((len(item), machine.item_factors.shape[1]), np.float32)
    bag = machine.parameters.factors[machine.fields.bag_offset :][item]
    terms: FloatArray = bag / np.float32(np.sqrt(max(len(item), 1)))
    return terms


def explain(
    machine: Ranker, own_bias: DoubleArray, terms: FloatArray, item: npt.NDArray[np.int32], score: DoubleArray
) -> Parts:
    """Takes the scores of a user's items apart.

    Args:
        own_bias: float64 [n_items], linear weights of the items alone.
        terms: float32 [n_events, k], from :func:`history_terms`.
        item: int32 [n], the items that are explained.
        score: float64 [n], their scores.
    """
    pushes = terms.astype(np.float64) @ machine.item_factors[item].astype(np.float64).T
    event = np.full((len(item), PUSHES), -1, np.int64)
    push = np.zeros((len(item), PUSHES))
    # by (push descending, newest first)
    best = np.argsort(-pushes[::-1], axis=0, kind="stable")[:PUSHES]
    places = (len(terms) - 1 - best).T
    values = np.take_along_axis(pushes, places.T, axis=0).T
    kept = values > 0.0
    event[:, : places.shape[1]] = np.where(kept, places, -1)
    push[:, : places.shape[1]] = np.where(kept, values, 0.0)
    bias = own_bias[item]
    side = machine.item_bias[item].astype(np.float64) - bias
    return Parts(bias, side, event, push, score - bias - side - push.sum(axis=1))


def _decayed_terms(machine: Machine, item: npt.NDArray[np.int32], liked: npt.NDArray[np.uint8]) -> FloatArray:
    n = len(item)
    terms = np.zeros((n, machine.k), np.float32)
    if n == 0:
        return terms
    for d, (decay, window) in enumerate(zip(machine.decays, history.windows(machine.decays), strict=True)):
        first = max(0, n - int(window))
        value = decay ** np.arange(n - first - 1, -1, -1.0) * np.sqrt((1 - decay**2) / (1 - decay ** (2 * n)))
        rows = machine.history[d, liked[first:], item[first:]]
        terms[first:] += value[:, None].astype(np.float32) * rows
    return terms
