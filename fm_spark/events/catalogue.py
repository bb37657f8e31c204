"""The catalogue on the driver: every item with its place, in ascending order of item ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from fm_spark.events.attributes import ATTRIBUTES


@dataclass(frozen=True)
class Catalogue:
    """The items in ascending order of their ids, so that a tie broken by index is a tie broken by item_id.

    Attributes:
        item_id: int64 or object [n_items], as in the input.
        title: object [n_items].
        genres: list of n_items lists of names.
        count: int64 [n_items], events of the item, all splits.
        feature: int32 [n_items], feature index of the item in the vocabulary.
        feature_to_item: int32 [max feature + 1], index of the item that has the feature, -1 for none.
        year: release years, None where it is not known.
        attributes: of each item name -> values, see the ``items`` table; all items have the same names.
    """

    item_id: npt.NDArray[np.object_] | npt.NDArray[np.int64]
    title: npt.NDArray[np.object_]
    genres: list[list[str]]
    count: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    feature_to_item: npt.NDArray[np.int32]
    year: list[int | None]
    attributes: list[dict[str, list[str]]]

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.feature)


def load_catalogue(items: pa.Table) -> Catalogue:
    """The catalogue out of the rows of ``items``; it grows with the catalogue, not with users or events."""
    wanted = ["item_id", "title", "genres", "year", "count", "item_feature", ATTRIBUTES]
    # pandas orders str by code point, as Spark and the kernels do
    rows = items.select(wanted).to_pandas().sort_values("item_id", kind="stable", ignore_index=True)
    feature = rows["item_feature"].to_numpy(dtype=np.int32)
    feature_to_item = np.full(int(feature.max(initial=-1)) + 1, -1, dtype=np.int32)
    feature_to_item[feature] = np.arange(len(feature), dtype=np.int32)
    return Catalogue(
        item_id=rows["item_id"].to_numpy(),
        title=rows["title"].to_numpy(dtype=object),
        genres=[list(g) for g in rows["genres"]],
        count=rows["count"].to_numpy(dtype=np.int64),
        feature=feature,
        feature_to_item=feature_to_item,
        year=[None if pd.isna(year) else int(year) for year in rows["year"]],
        attributes=[{name: list(values) for name, values in dict(of_item).items()} for of_item in rows[ATTRIBUTES]],
    )
