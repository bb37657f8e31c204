"""What is popular, whoever asks: lists by count, by weighted rating and by growth, overall and per genre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from fm_spark.config_sections import PopularConfig
from fm_spark.core.popularity import best, growth, weighted_rating
from fm_spark.core.time_fields import DAY
from fm_spark.events.catalogue import Catalogue

COUNT, WEIGHTED_RATING, TRENDING = KINDS = ("count", "weighted_rating", "trending")
OVERALL = ""
"""The genre of the lists over all items; no genre has an empty name."""

# ratings are summed as integers, / 2^20, so that the sum does not depend on its order
_UNIT = 2.0**20


@dataclass(frozen=True)
class ItemCounts:
    """What is counted of every item, in the catalogue's order.

    Attributes:
        count: int64 [n_items], events.
        mean: float64 [n_items], mean value; NaN without events.
        recent, before: int64 [n_items], events of the newest window and of the one before it.
        rated: whether values differ; without a value column each is 1.
    """

    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    recent: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    rated: bool


def count_items(events: DataFrame, catalogue: Catalogue, config: PopularConfig) -> ItemCounts:
    """Counts the events of every item; one row an item travels to the driver.

    Windows end at the time of the newest event: the newest one holds the events of the last ``popular.recent_days``
    days, the one before the ``popular.previous_days`` days before that.
    """
    ends = events.agg(F.max(_micros()), F.min("value"), F.max("value")).collect()[0]
    newest = ends[0] or 0
    start = newest - int(config.recent_days * DAY)
    earlier = start - int(config.previous_days * DAY)
    rows = (
        events.groupBy("item_feature")
        .agg(
            F.count(F.lit(1)).alias("count"),
            F.sum(F.round(F.col("value") * _UNIT).cast("bigint")).alias("value"),
            F.count_if(_micros() > F.lit(start)).alias("recent"),
            F.count_if((_micros() > F.lit(earlier)) & (_micros() <= F.lit(start))).alias("before"),
        )
        .toPandas()
    )
    place = catalogue.feature_to_item[rows["item_feature"].to_numpy()]
    found = {name: np.zeros(catalogue.n_items, np.int64) for name in ("count", "value", "recent", "before")}
    for name, counts in found.items():
        counts[place] = rows[name].to_numpy(np.int64)
    count = found["count"]
    mean = np.divide(found["value"] / _UNIT, count, out=np.full(len(count), np.nan), where=count > 0)
    return ItemCounts(count, mean, found["recent"], found["before"], ends[1] != ends[2])


def _micros() -> Column:
    return F.unix_micros("time")


def popularity(counts: ItemCounts, kind: str, config: PopularConfig) -> npt.NDArray[np.float64]:
    """The score of every item in the lists of a kind, float64 [n_items]; NaN for an item that they leave out.

    ``count``: the number of events. ``weighted_rating`` and ``trending``: see :mod:`fm_spark.core.popularity`.
    """
    if kind == COUNT:
        return np.where(counts.count > 0, counts.count, np.nan)
    if kind == WEIGHTED_RATING:
        return weighted_rating(counts.count, counts.mean, config.prior_percentile)
    return growth(counts.recent, counts.before, config.recent_days / config.previous_days, config.smoothing)


def popular_rows(catalogue: Catalogue, counts: ItemCounts, config: PopularConfig) -> pd.DataFrame:
    """The rows of ``popular_items`` but for run and model.

    A log without ratings has no ``weighted_rating``: when all values are equal, so are all weighted ratings.
    """
    groups = {OVERALL: np.arange(catalogue.n_items), **_items_of_genres(catalogue)}
    kinds = [kind for kind in KINDS if kind != WEIGHTED_RATING or counts.rated]
    parts = []
    for kind in kinds:
        score = popularity(counts, kind, config)
        parts += [_list(catalogue, counts, kind, genre, score, best(score, m, config.n)) for genre, m in groups.items()]
    return pd.concat(parts, ignore_index=True)


def _list(
    catalogue: Catalogue,
    counts: ItemCounts,
    kind: str,
    genre: str,
    score: npt.NDArray[np.float64],
    item: npt.NDArray[np.int64],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": kind,
            "genre": genre,
            "rank": np.arange(1, len(item) + 1, dtype=np.int32),
            "item_id": catalogue.item_id[item],
            "title": catalogue.title[item],
            "score": score[item],
            "count": counts.count[item],
            "mean_value": counts.mean[item],
            "recent_count": counts.recent[item],
            "previous_count": counts.before[item],
        }
    )


def _items_of_genres(catalogue: Catalogue) -> dict[str, npt.NDArray[np.int64]]:
    names: dict[str, list[int]] = {}
    for item, genres in enumerate(catalogue.genres):
        for genre in set(genres):
            names.setdefault(genre, []).append(item)
    return {genre: np.array(names[genre], np.int64) for genre in sorted(names)}
