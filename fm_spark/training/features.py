"""The features of the machine beyond the static ones of the events: side features of items, history fields."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from fm_spark.core.context import ContextFields
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.vocabulary import extend_vocabulary
from fm_spark.tables.store import TableStore

ITEM, GENRE, USER, BAG = "item", "genre", "user", "bag"
OF_USER = "user:"
"""What the field of a user's column begins with."""


class Side(NamedTuple):
    """Side features of the items: their names (ascending) and values, float32 CSR [n_items, n_side]."""

    names: list[str]
    x: sparse.csr_matrix


def genre_features(catalogue: Catalogue) -> Side:
    """Genres as multi-hot features of value 1 / sqrt(number of the item's genres)."""
    names = sorted({name for genres in catalogue.genres for name in genres})
    place = {name: j for j, name in enumerate(names)}
    rows = np.repeat(np.arange(catalogue.n_items), [len(genres) for genres in catalogue.genres])
    columns = np.array([place[name] for genres in catalogue.genres for name in genres], dtype=np.int64)
    values = np.array([len(genres) ** -0.5 for genres in catalogue.genres for _ in genres], dtype=np.float32)
    return Side(names, sparse.csr_matrix((values, (rows, columns)), shape=(catalogue.n_items, len(names))))


def history_fields(decays: tuple[float, ...]) -> list[str]:
    """Names of the history fields in the order of the parameter tables: for each decay not liked, then liked."""
    return [f"history_{kind}_{decay:g}" for decay in decays for kind in ("not_liked", "liked")]


def context_names(context: ContextFields) -> list[str]:
    """Names of the context fields in their order."""
    return [*context.time, *(OF_USER + name for name in context.user)]


def vocabulary_of(store: TableStore, values: dict[str, list[str]], run_id: str) -> dict[str, dict[str, int]]:
    """Field -> value -> feature index of every field of the machine; new features are added to the table.

    Args:
        values: the values of the machine's fields beside items and genres, in the order of their numbers.

    Returns:
        Plain dicts on the driver: they grow with the parameters, which training holds there too.
    """
    frames = [pd.DataFrame({"field": field, "value": column}) for field, column in values.items()]
    vocabulary = extend_vocabulary(store, pd.concat(frames, ignore_index=True), run_id)
    wanted = vocabulary[vocabulary["field"].isin([ITEM, GENRE, *values])]
    return {
        str(field): dict(zip(group["value"], group["feature"].astype(int), strict=True))
        for field, group in wanted.groupby("field")
    }
