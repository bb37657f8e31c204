"""Vectors of items with few events: drawn towards what their genres suggest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# keeps the fit on genres solvable when two of them always come together; next to the counts of real genres nothing
_RIDGE = 1.0

Doubles = npt.NDArray[np.float64]


def blended(factors: Doubles, count: npt.NDArray[np.int64], genres: Sequence[Sequence[str]], min_count: int) -> Doubles:
    """The vectors of the items, those of rare ones pulled towards what genres suggest.

    An item with few events still has most of its random start, and what it has learned is that it is rare; its own
    vector would put it with all other such items, whatever they are about. Instead of its vector v, an item with
    n < min_count events gets

        (n v + min_count prior) / (n + min_count),    prior = mean + sum over its genres g of w_g,

    where mean is that of the items with enough events and w the ridge regression of their deviations from it on their
    genres. An item without genres, or with none that those items have, gets the mean as its prior. All this comes
    before any scaling to length 1, because a short vector is one that has learned little.

    Args:
        factors: float64 [n_items, k], as the machine has them; at least one item has enough events.
        count: int64 [n_items], events of each item.
    """
    enough, rare = (np.flatnonzero(some).tolist() for some in (count >= min_count, count < min_count))
    place = {name: i for i, name in enumerate(sorted({name for item in enough for name in genres[item]}))}
    mean = factors[enough].mean(axis=0)
    both, deviation = np.eye(len(place)) * _RIDGE, np.zeros((len(place), factors.shape[1]))
    for item in enough:  # no matrix of items x genres: the catalogue may be large and so may the number of genres
        own = [place[name] for name in set(genres[item])]
        both[np.ix_(own, own)] += 1
        deviation[own] += factors[item] - mean
    weight = np.linalg.solve(both, deviation)
    found = factors.copy()
    for item in rare:
        own = [place[name] for name in sorted(set(genres[item])) if name in place]
        prior = mean + weight[own].sum(axis=0)
        found[item] = (count[item] * factors[item] + min_count * prior) / (count[item] + min_count)
    return found
