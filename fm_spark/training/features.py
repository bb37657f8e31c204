"""The features of the machine beyond the static ones of the events: side features of items, history fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from fm_spark.config_sections import TrainConfig
from fm_spark.core.context import ContextFields
from fm_spark.errors import InputError
from fm_spark.events.attributes import RESERVED
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.tags import TAGS
from fm_spark.events.vocabulary import UNSEEN, extend_vocabulary
from fm_spark.tables.store import TableStore

ITEM, GENRE, YEAR, TAG, USER, BAG = "item", "genre", "year", "tag", "user", "bag"
ITEM_SIDE = (GENRE, YEAR, TAG)
"""Side fields of items in the order of their features; the columns of the items file come after."""
OF_COLUMN = "item:"
"""The field of a column of the items file is this and the column's name."""
OF_USER = "user:"
"""The field of a column of the users' file is this and the column's name."""
YEARS = 5
"""Release years that share a feature."""


class Part(NamedTuple):
    """The features of one side field: columns ``place`` of :attr:`Side.x`."""

    field: str
    names: list[str]
    place: slice


class Side(NamedTuple):
    """Side features of the items.

    Attributes:
        parts: one a field, in the order of the columns.
        x: float32 CSR [n_items, n_side], feature values.
    """

    parts: list[Part]
    x: sparse.csr_matrix

    @property
    def names(self) -> list[str]:
        """The value that each column stands for."""
        return [name for part in self.parts for name in part.names]


def side_fields(config: TrainConfig, catalogue: Catalogue) -> list[str]:
    """The fields of the item side beside the item itself: those switched on, and every column of the items table.

    Genres that no item has are no field.

    Raises:
        InputError: years or tags are switched on and no item has one.
    """
    years, tags = any(year is not None for year in catalogue.year), any(of.get(TAGS) for of in catalogue.attributes)
    if config.year and not years:
        raise InputError("train.year = true, but no item has a year; leave it at false or name input.items_year_column")
    if config.tags and not tags:
        raise InputError(
            "train.tags = true, but the items have no tags that were given before the test starts; run events with "
            "train.tags = true on a MovieLens release with tags, or leave it at false"
        )
    present = {GENRE: config.genres and any(catalogue.genres), YEAR: config.year, TAG: config.tags}
    columns = {name for name in catalogue.attributes[0] if not name.startswith(RESERVED)} if catalogue.n_items else ()
    return ordered_fields([*(field for field, on in present.items() if on), *(OF_COLUMN + name for name in columns)])


def ordered_fields(fields: Iterable[str]) -> list[str]:
    """The side fields among these, in the order of their features: genre, year, tag, then columns by name."""
    given = set(fields)
    return [
        *(field for field in ITEM_SIDE if field in given),
        *sorted(field for field in given if field.startswith(OF_COLUMN)),
    ]


def item_features(catalogue: Catalogue, fields: Sequence[str]) -> Side:
    """Every field multi-hot: an item's n values of a field have 1 / sqrt(n) each, no value has no feature.

    Fields of one value (years, categorical and numeric columns) have ``__unseen__`` where the value is not known. The
    values of a field come in ascending order, so that nothing depends on the order of the input.

    Args:
        fields: from :func:`side_fields` or :func:`ordered_fields`.
    """
    parts: list[Part] = []
    matrices: list[sparse.csr_matrix] = []
    begin = 0
    for field in fields:
        names, x = _multi_hot(_values(catalogue, field))
        parts.append(Part(field, names, slice(begin, begin + len(names))))
        matrices.append(x)
        begin += len(names)
    if not matrices:
        return Side([], sparse.csr_matrix((catalogue.n_items, 0), dtype=np.float32))
    return Side(parts, matrices[0] if len(matrices) == 1 else sparse.hstack(matrices, format="csr"))


def year_bin(year: int | None) -> str:
    """Years that share a feature: ``1995-1999``; ``__unseen__`` for None."""
    if year is None:
        return UNSEEN
    first = year // YEARS * YEARS
    return f"{first}-{first + YEARS - 1}"


def _values(catalogue: Catalogue, field: str) -> list[list[str]]:
    if field == GENRE:
        return catalogue.genres
    if field == YEAR:
        return [[year_bin(year)] for year in catalogue.year]
    name = TAGS if field == TAG else field.removeprefix(OF_COLUMN)
    return [of_item[name] for of_item in catalogue.attributes]


def _multi_hot(values: list[list[str]]) -> tuple[list[str], sparse.csr_matrix]:
    names = sorted({name for own in values for name in own})
    place = {name: j for j, name in enumerate(names)}
    rows = np.repeat(np.arange(len(values)), [len(own) for own in values])
    columns = np.array([place[name] for own in values for name in own], dtype=np.int64)
    x = np.array([len(own) ** -0.5 for own in values for _ in own], dtype=np.float32)
    return names, sparse.csr_matrix((x, (rows, columns)), shape=(len(values), len(names)))


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
    # a field without any value has an index for the unseen one too
    frames = [pd.DataFrame({"field": field, "value": [UNSEEN, *column]}) for field, column in values.items()]
    vocabulary = extend_vocabulary(store, pd.concat(frames, ignore_index=True), run_id)
    wanted = vocabulary[vocabulary["field"].isin([ITEM, GENRE, *values])]
    return {
        str(field): dict(zip(group["value"], group["feature"].astype(int), strict=True))
        for field, group in wanted.groupby("field")
    }
