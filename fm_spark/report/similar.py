"""The part of the report that shows a few well-known items with their nearest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import functions as F

from fm_spark.report.facts import Neighbour, SimilarFacts
from fm_spark.report.pinned import Pinned
from fm_spark.tables.contracts import ITEMS, SIMILAR_ITEMS, SIMILAR_QUALITY

SHOWN_NEIGHBOURS = 5
_LOOKED_AT = 100
"""Best known items that the shown ones are chosen from."""


def similar_facts(pinned: Pinned, n_items: int) -> list[SimilarFacts]:
    """Well-known items of different genres with their nearest items; none when the run has no such table."""
    if not n_items or SIMILAR_ITEMS.name not in pinned.publication.tables:
        return []
    best = pinned.read(ITEMS).orderBy(F.col("count").desc(), "item_id").limit(_LOOKED_AT)
    rows = best.select("item_id", "title", "genres").collect()
    chosen = different([(row["item_id"], row["genres"]) for row in rows], n_items)
    near = (
        pinned.read(SIMILAR_ITEMS)
        .where(F.col("item_id").isin(chosen) & (F.col("rank") <= SHOWN_NEIGHBOURS))
        .select("item_id", "rank", "similar_title", "score")
        .collect()
    )
    near.sort(key=lambda row: int(row["rank"]))
    titles = {row["item_id"]: row["title"] for row in rows}
    shown = [
        SimilarFacts(titles[item], [Neighbour(r["similar_title"], r["score"]) for r in near if r["item_id"] == item])
        for item in chosen
    ]
    return [one for one in shown if one.neighbours]


def different(items: Sequence[tuple[Any, Sequence[str]]], n: int) -> list[Any]:
    """The first items of which no two have a genre in common; where there are fewer than ``n``, the next ones as well.

    Args:
        items: (item, its genres), the best known first.
    """
    chosen: list[Any] = []
    taken: set[str] = set()
    for item, genres in items:
        if genres and taken.isdisjoint(genres):
            chosen.append(item)
            taken.update(genres)
    others = [item for item, _ in items if item not in chosen]
    return [*chosen, *others][:n]


def genre_shares(pinned: Pinned) -> dict[str, float]:
    """How often neighbours have a genre in common, by who chose them; empty when the run has no such table."""
    if SIMILAR_QUALITY.name not in pinned.publication.tables:
        return {}
    rows = pinned.read(SIMILAR_QUALITY).select("neighbours", "share").collect()
    return {row["neighbours"]: row["share"] for row in rows}
