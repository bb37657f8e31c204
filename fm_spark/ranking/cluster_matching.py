"""Cluster ids that mean the same from run to run: matched to those of an earlier run on the items that both have."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment

KEPT, BORN, DEAD = "kept", "born", "dead"

# clusters of which less is the same have no more in common than their id
_LEAST_ALIKE = 0.1

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Earlier:
    """The clusters whose ids go on.

    Attributes:
        run_id: the run that they are of.
        item_id: int64 or object [n], every item once.
        cluster_id: int32 [n], the cluster of each item.
        next_id: what the first new cluster may be called: more than any id that this line of runs has had.
    """

    run_id: str
    item_id: npt.NDArray[np.object_] | npt.NDArray[np.int64]
    cluster_id: Ids
    next_id: int


@dataclass(frozen=True)
class Change:
    """What became of one id; the fields are columns of ``cluster_changes``."""

    cluster_id: int
    status: str
    size: int
    size_before: int
    counterpart_id: int | None
    shared_items: int


class Matched(NamedTuple):
    """The ids of the new clusters and how they came about.

    Attributes:
        ids: int32 [n_clusters], the id of each new cluster.
        stability: adjusted Rand index of both clusterings over the items that both have; None without any.
        changes: one for every new cluster and for every earlier one that ended, by id.
        next_id: see :class:`Earlier`.
        matched_run_id: the run whose ids went on; None for the first run of a line.
    """

    ids: Ids
    stability: float | None
    changes: list[Change]
    next_id: int
    matched_run_id: str | None


def match_clusters(
    item_id: npt.NDArray[np.object_] | npt.NDArray[np.int64], cluster: Ids, earlier: Earlier | None
) -> Matched:
    """Gives every cluster the id of the earlier cluster that it goes on from, or one that nothing has had before.

    The pairs are those that have the most items in common in all (Hungarian assignment), among those whose Jaccard
    index over the items of both runs is at least 0.1: without a bound the assignment pairs what is left over, and an
    id would go on with 3 items of 500. What stays without a partner gets new ids in the order of ``cluster``.

    Args:
        item_id: of each item, every item once.
        cluster: int32 [n_items], from 0 without gaps; the order in which new ids are given.
        earlier: None gives the ids 0, 1, ....

    Source: Kuhn (1955), by ``scipy.optimize.linear_sum_assignment``.
    """
    size = np.bincount(cluster)
    if earlier is None:
        born = [Change(i, BORN, int(n), 0, None, 0) for i, n in enumerate(size)]
        return Matched(np.arange(len(size), dtype=np.int32), None, born, len(size), None)
    names, size_before = np.unique(earlier.cluster_id, return_counts=True)
    shared = _shared(earlier_places(item_id, earlier), cluster, (len(names), len(size)))
    ids = np.full(len(size), -1, dtype=np.int32)
    eligible = np.where(_jaccard(shared) >= _LEAST_ALIKE, shared, 0)
    before, now = linear_sum_assignment(eligible, maximize=True)
    pairs = eligible[before, now] > 0
    ids[now[pairs]] = names[before[pairs]]
    first = max(earlier.next_id, int(names.max()) + 1)
    new = np.flatnonzero(ids < 0)
    ids[new] = first + np.arange(len(new))
    ended = np.setdiff1d(np.arange(len(names)), before[pairs])
    changes = [_now(int(ids[i]), int(size[i]), shared[:, i], names, size_before) for i in range(len(size))]
    changes += [_ended(int(names[i]), int(size_before[i]), shared[i], ids) for i in ended]
    changes.sort(key=lambda change: change.cluster_id)
    stability = adjusted_rand_index(shared) if shared.any() else None
    return Matched(ids, stability, changes, first + len(new), earlier.run_id)


def adjusted_rand_index(shared: Counts) -> float:
    """How much two clusterings of the same items agree: 1 the same, about 0 by chance; it may be negative.

    Args:
        shared: int64 [n_a, n_b], items that are in the one cluster here and in the other there; at least one item.

    Source: Hubert and Arabie (1985), over pairs of items as in Steinley (2004).
    """
    n = float(shared.sum())
    both = float((shared.astype(np.float64) ** 2).sum())
    one, other = (float((shared.sum(axis=axis).astype(np.float64) ** 2).sum()) for axis in (1, 0))
    together, only_one, only_other = both - n, one - both, other - both
    apart = n * n - one - other + both
    if only_one == 0 and only_other == 0:
        return 1.0
    agreed = 2.0 * (together * apart - only_one * only_other)
    possible = (together + only_one) * (only_one + apart) + (together + only_other) * (only_other + apart)
    return agreed / possible


def earlier_places(item_id: npt.NDArray[np.object_] | npt.NDArray[np.int64], earlier: Earlier) -> Ids:
    """Of every item the earlier cluster that it was in, by its place among their ids: int32 [n_items], -1 for none."""
    place = np.unique(earlier.cluster_id, return_inverse=True)[1].astype(np.int32)
    found = pd.Index(earlier.item_id).get_indexer(pd.Index(item_id))
    return np.where(found >= 0, place[found], np.int32(-1))


def _shared(before: Ids, cluster: Ids, shape: tuple[int, int]) -> Counts:
    """Items in common of every earlier cluster with every new one, int64 [n_earlier, n_new]."""
    there = before >= 0
    shared = np.zeros(shape, dtype=np.int64)
    np.add.at(shared, (before[there], cluster[there]), 1)
    return shared


def _jaccard(shared: Counts) -> npt.NDArray[np.float64]:
    """Items that two clusters have in common / items that are in one of them: float64 [n_earlier, n_new]."""
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    return np.asarray(shared / np.maximum(either, 1))


def _now(cluster_id: int, size: int, shared: Counts, names: Ids, size_before: Counts) -> Change:
    """Of a cluster that there is: kept, or born out of the earlier cluster that most of its items were in."""
    own = np.flatnonzero(names == cluster_id)
    if len(own):
        return Change(cluster_id, KEPT, size, int(size_before[own[0]]), cluster_id, int(shared[own[0]]))
    most = int(shared.argmax())
    return Change(cluster_id, BORN, size, 0, int(names[most]) if shared[most] else None, int(shared[most]))


def _ended(cluster_id: int, size_before: int, shared: Counts, ids: Ids) -> Change:
    """Of an earlier cluster that is no more: the cluster that most of its items are in now."""
    most = int(shared.argmax())
    return Change(cluster_id, DEAD, 0, size_before, int(ids[most]) if shared[most] else None, int(shared[most]))


def change_rows(matched: Matched) -> pd.DataFrame:
    """The rows of ``cluster_changes`` but for run and model."""
    names = [f.name for f in fields(Change)]
    # as objects: pandas would make floats of whole numbers with gaps
    rows = pd.DataFrame([astuple(change) for change in matched.changes], columns=names, dtype=object)
    return rows.assign(stability=matched.stability, matched_run_id=matched.matched_run_id, next_id=matched.next_id)
