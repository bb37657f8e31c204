"""How popular items are: shrunken mean ratings, growth, and the order of a list. Plain arithmetic over counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def weighted_rating(count: Counts, mean: Doubles, percentile: float) -> Doubles:
    """Mean ratings drawn to the mean of all ratings, the more the fewer there are; float64 [n_items].

    v / (v + m) R + m / (v + m) C, with v the item's ratings, R their mean, C the mean of all ratings (items with more
    ratings count more), and m the percentile of v over the items that have a rating. NaN for an item without ratings.

    Args:
        count: int64 [n_items], v.
        mean: float64 [n_items], R; not read where v is 0.
        percentile: 0 to 100, linear between neighbours.

    Source: the "weighted rating" of IMDb's Top 250, a Bayesian mean with a prior of m ratings of C.
    """
    rated = count > 0
    found = np.full(len(count), np.nan)
    if not rated.any():
        return found
    v, r = count[rated].astype(np.float64), mean[rated]
    m, c = np.percentile(v, percentile), float((v * r).sum() / v.sum())
    found[rated] = (v * r + m * c) / (v + m)
    return found


def growth(recent: Counts, before: Counts, ratio: float, smoothing: float) -> Doubles:
    """(recent + s) / (before * ratio + s): how many times as many events an item has now; float64 [n_items].

    1 is no change. The s events added on both sides keep an item that went from one event to three behind one that
    went from a hundred to two hundred. NaN for an item without recent events.

    Args:
        recent, before: int64 [n_items], events in the newest window and in the one before it.
        ratio: length of the newest window / length of the one before.
        smoothing: s, above 0.
    """
    found: Doubles = (recent + smoothing) / (before * ratio + smoothing)
    found[recent == 0] = np.nan
    return found


def best(score: Doubles, members: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """The n members with the greatest scores, best first, ties by index; int64 [at most n].

    Args:
        score: float64 [n_items]; NaN leaves an item out.
        members: int64, indices of the items that compete, ascending.
    """
    listed = members[np.isfinite(score[members])]
    return listed[np.argsort(-score[listed], kind="stable")][:n]
