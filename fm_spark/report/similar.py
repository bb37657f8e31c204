"""The part of the report that shows a few well-known items with their nearest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    items = pinned.rows(ITEMS, ("item_id", "title", "genres", "count"))
    rows = items.sort_by([("count", "descending"), ("item_id", "ascending")]).slice(0, _LOOKED_AT).to_pylist()
    chosen = different([(row["item_id"], row["genres"]) for row in rows], n_items)
    ranks = list(range(1, SHOWN_NEIGHBOURS + 1))
    columns = ("item_id", "rank", "similar_title", "score")
    near = pinned.rows(SIMILAR_ITEMS, columns, {"item_id": chosen, "rank": ranks}).sort_by("rank").to_pylist()
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
    rows = pinned.rows(SIMILAR_QUALITY, ("neighbours", "share")).to_pylist()
    return {row["neighbours"]: row["share"] for row in rows}
