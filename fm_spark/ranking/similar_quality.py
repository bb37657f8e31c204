"""How good neighbours are: how often they have a genre in common, beside co-occurrence and random pairs."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from fm_spark.core.cooccurrence import liked_together
from fm_spark.core.neighbours import NameSets, Neighbourhood, common_names, name_sets, nearest_items
from fm_spark.events.catalogue import Catalogue

log = logging.getLogger("fm_spark.ranking.similar_quality")

MODEL, CO_OCCURRENCE, RANDOM = "model", "co_occurrence", "random"
# a share of so many items times their neighbours has a standard error below a hundredth; memory has a bound
_ITEMS = 2_000
_EVENTS = 500_000


class GenreShare(NamedTuple):
    """One row of ``similar_quality``; ``share`` is NaN without pairs."""

    neighbours: str
    share: float
    pairs: int
    items: int


def genre_shares(events: DataFrame, around: Neighbourhood, catalogue: Catalogue, n: int, seed: int) -> list[GenreShare]:
    """How often the ``n`` neighbours of an item have a genre in common with it, by three ways to choose them.

    The same items ask, at most 2,000 evenly spread over those that can be neighbours; a pair counts when both have
    genres. Co-occurrence is that of the likes of all users, or of a fixed sample of the users with about half a
    million events.

    Args:
        events: the ``events`` table.
        seed: of the random pairs.
    """
    asked = around.members[np.linspace(0, len(around.members) - 1, min(_ITEMS, len(around.members))).astype(np.int64)]
    genres = name_sets(catalogue.genres)
    chosen = {
        MODEL: nearest_items(around, asked.astype(np.int64), n).item,
        CO_OCCURRENCE: _liked_together(events, around, catalogue, asked, n),
        RANDOM: _random(around, asked, n, seed),
    }
    shares = [_share(name, genres, asked, item) for name, item in chosen.items()]
    log.info(
        "neighbours with a genre in common: %s",
        ", ".join(f"{one.neighbours.replace('_', '-')} {one.share:.3f}" for one in shares),
    )
    return shares


def share_rows(shares: list[GenreShare]) -> pd.DataFrame:
    """The rows of ``similar_quality`` but for run and model; what has no pair, for lack of genres, has no row."""
    return pd.DataFrame([one for one in shares if one.pairs], columns=list(GenreShare._fields))


def _share(name: str, genres: NameSets, asked: npt.NDArray[np.int32], item: npt.NDArray[np.int32]) -> GenreShare:
    row, place = np.nonzero(item >= 0)
    common = common_names(genres, asked[row], item[row, place])
    pairs = int(np.count_nonzero(common >= 0))
    return GenreShare(name, np.count_nonzero(common == 1) / pairs if pairs else np.nan, pairs, len(asked))


def _random(around: Neighbourhood, asked: npt.NDArray[np.int32], n: int, seed: int) -> npt.NDArray[np.int32]:
    drawn = around.members[np.random.default_rng(seed).integers(0, len(around.members), (len(asked), n))]
    return np.where(drawn == asked[:, None], -1, drawn).astype(np.int32)


def _liked_together(
    events: DataFrame, around: Neighbourhood, catalogue: Catalogue, asked: npt.NDArray[np.int32], n: int
) -> npt.NDArray[np.int32]:
    """Neighbours by co-occurrence, among the same candidates; int32 [n_asked, n], item indices."""
    user = F.xxhash64("user_id")
    kept = min(1.0, _EVENTS / max(1, int(catalogue.count.sum())))
    part = 1_000_000
    liked = events.where((F.col("label") > 0) & (F.pmod(user, F.lit(part)) < F.lit(int(kept * part))))
    rows = liked.select(user.alias("user"), "item_feature").toPandas()
    place = np.full(catalogue.n_items, -1)
    place[around.members] = np.arange(len(around.members))
    column = place[catalogue.feature_to_item[rows["item_feature"].to_numpy()]]
    row = np.unique(rows["user"].to_numpy(), return_inverse=True)[1]
    there = column >= 0
    shape = (int(row.max(initial=-1)) + 1, len(around.members))
    likes = sparse.csr_matrix((np.ones(int(there.sum())), (row[there], column[there])), shape=shape)
    found = liked_together(likes, place[asked], n)
    return np.where(found >= 0, around.members[found], -1).astype(np.int32)
