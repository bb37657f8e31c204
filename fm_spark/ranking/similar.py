"""The nearest items of every item, exactly, as rows of the ``similar_items`` table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from fm_spark.config_sections import SimilarConfig
from fm_spark.core.neighbours import NameSets, Neighbourhood, common_names, name_sets, nearest_items, neighbourhood
from fm_spark.core.rare_items import blended
from fm_spark.core.topk import Sorted, sort_items
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.blocks import SCORES, broadcast
from fm_spark.tables.made import Made

log = logging.getLogger("fm_spark.ranking.similar")

MODEL, BLENDED = "model", "blended"
# items that a task compares at once; as many as users in a block
_BLOCK = 2_048
# rows that a task makes at most; each task writes a file, of about 20 MB
_FILE_ROWS = 1_000_000


class _Shared(NamedTuple):
    """What every task needs; sent once."""

    around: Neighbourhood
    genres: NameSets
    rare: npt.NDArray[np.bool_]
    item_id: pa.Array
    title: pa.Array


def around_items(item_factors: npt.NDArray[np.float32], catalogue: Catalogue, config: SimilarConfig) -> Neighbourhood:
    """The items laid out for the search: who can be a neighbour, and by which vectors they are compared.

    Items with at least ``similar.min_count`` events can be neighbours. The others ask by their vector blended with
    what their genres suggest (:func:`~fm_spark.core.rare_items.blended`).

    Args:
        item_factors: float32 [n_items, k].

    Raises:
        ConfigError: no item has so many events.
    """
    enough = catalogue.count >= config.min_count
    if not enough.any():
        raise ConfigError(
            f"similar.min_count = {config.min_count} leaves no item that could be a neighbour: the best known one has "
            f"{int(catalogue.count.max(initial=0)):,} events; give a smaller similar.min_count"
        )
    vectors = item_factors
    if not enough.all():
        whole = blended(item_factors.astype(np.float64), catalogue.count, catalogue.genres, config.min_count)
        vectors = np.where(enough[:, None], item_factors, whole.astype(np.float32))
    around = neighbourhood(vectors, enough, catalogue.count, config.metric, config.popularity_discount)
    others = len(around.members) - 1
    if config.n > others:
        log.warning(
            "similar.n = %d is more than the %d other items that can be neighbours (of %d, with at least "
            "similar.min_count = %d events); lists end there",
            config.n, others, catalogue.n_items, config.min_count,
        )  # fmt: skip
    silent = int(np.count_nonzero(around.unit == 0))
    if silent:
        log.warning("%s items have a vector of zeros, so neither neighbours nor a place among them", f"{silent:,}")
    return around


@contextmanager
def similar_rows(
    spark: SparkSession, around: Neighbourhood, catalogue: Catalogue, config: SimilarConfig
) -> Iterator[Made]:
    """The rows of ``similar_items`` but for run and model; to be used inside the ``with`` block.

    Every partition holds a range of the items, in the order of the table. Items are taken in blocks, so the memory of
    a task does not grow with their number but for their vectors.
    """
    shared = _Shared(
        around,
        name_sets(catalogue.genres),
        catalogue.count < config.min_count,
        pa.array(catalogue.item_id),
        pa.array(catalogue.title, pa.string()),
    )
    of_id = T.LongType() if pa.types.is_integer(shared.item_id.type) else T.StringType()
    schema = T.StructType(
        [
            T.StructField("item_id", of_id),
            T.StructField("title", T.StringType()),
            T.StructField("rank", T.IntegerType()),
            T.StructField("similar_item_id", of_id),
            T.StructField("similar_title", T.StringType()),
            T.StructField("score", T.DoubleType()),
            T.StructField("shares_genre", T.BooleanType()),
            T.StructField("source", T.StringType()),
        ]
    )
    busy = min(spark.sparkContext.defaultParallelism, catalogue.n_items**2 // SCORES)
    tasks = max(busy, -(-catalogue.n_items * config.n // _FILE_ROWS))  # a small table is one file
    with broadcast(spark, shared) as sent:
        items = spark.range(0, catalogue.n_items, 1, tasks)
        yield Made(items, partial(_lists, sent, config.n, schema.names), schema)


def _lists(
    sent: Broadcast[_Shared], n: int, names: list[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    ordered = sort_items(sent.value.around.candidates, reach=1.0)
    for batch in batches:
        for first in range(0, batch.num_rows, _BLOCK):
            asked = batch.column(0).slice(first, _BLOCK).to_numpy()
            yield _block_lists(sent.value, ordered, asked, n, names)


def _block_lists(
    shared: _Shared, ordered: Sorted, asked: npt.NDArray[np.int64], n: int, names: list[str]
) -> pa.RecordBatch:
    best = nearest_items(shared.around, asked, n, ordered)
    row, place = np.nonzero(best.item >= 0)
    one, other = asked[row].astype(np.int32), best.item[row, place]
    common = common_names(shared.genres, one, other)
    source = pa.DictionaryArray.from_arrays(pa.array(shared.rare[one].astype(np.int8)), [MODEL, BLENDED])
    return pa.RecordBatch.from_arrays(
        [
            shared.item_id.take(pa.array(one)),
            shared.title.take(pa.array(one)),
            pa.array((place + 1).astype(np.int32)),
            shared.item_id.take(pa.array(other)),
            shared.title.take(pa.array(other)),
            pa.array(best.score[row, place]),
            pa.array(common == 1, mask=common < 0),
            source.cast(pa.string()),
        ],
        names=names,
    )
