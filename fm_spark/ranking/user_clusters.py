"""Taste groups: k-means on the normalised query vectors of users, who stay in Spark but for a bounded sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.config_sections import ClusterConfig
from fm_spark.core.context import ContextFields
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.events.histories import SparkHistories
from fm_spark.events.sequences import ordered_events
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks
from fm_spark.ranking.clusters import candidates, fit_clusters
from fm_spark.ranking.inputs import RankingInputs
from fm_spark.ranking.kmeans import nearest, normalised
from fm_spark.ranking.top_n import as_of_newest

Doubles = npt.NDArray[np.float64]


class _Shared(NamedTuple):
    """What every task needs; sent once. ``centres`` is None while they are looked for."""

    machine: Ranker
    context: ContextFields
    feature_to_item: npt.NDArray[np.int32]
    centres: Doubles | None = None


@contextmanager
def user_cluster_rows(inputs: RankingInputs, config: ClusterConfig) -> Iterator[DataFrame]:
    """The group of every user: user_id, cluster_id, distance; to be used inside the ``with`` block.

    The centres come from at most ``cluster.user_sample`` users; groups go by their size in that sample, descending.
    Fields of time are those of the newest event, for everybody, as in the lists.

    Raises:
        ConfigError: fewer different users shape the groups than there would be groups.
    """
    events = inputs.events
    shared = _Shared(
        inputs.machine, as_of_newest(inputs.machine.context, SparkHistories(events)), inputs.catalogue.feature_to_item
    )
    partitions = partitions_for(events.sparkSession, inputs.catalogue)
    centres = _centres(events, shared, partitions, config)
    schema = T.StructType(
        [_user_id(events), T.StructField("cluster_id", T.IntegerType()), T.StructField("distance", T.DoubleType())]
    )
    with broadcast(events.sparkSession, shared._replace(centres=centres)) as sent:
        yield ordered_events(events, partitions, context=shared.context).mapInArrow(partial(_groups, sent), schema)


def sampled_users(events: DataFrame, n: int, seed: int) -> DataFrame:
    """At most ``n`` users, the same ones for any partitioning: those with the smallest hashes of (id, seed)."""
    users = events.select("user_id").distinct()
    return users.orderBy(F.xxhash64("user_id", F.lit(seed)), "user_id").limit(n)


def _centres(events: DataFrame, shared: _Shared, partitions: int, config: ClusterConfig) -> Doubles:
    """Centres of the groups of sampled users, float64 [n_groups, k]; the sample's vectors come to the driver."""
    spark = events.sparkSession
    own = events.join(sampled_users(events, config.user_sample, config.seed), on="user_id", how="left_semi")
    schema = T.StructType([_user_id(events), T.StructField("vector", T.ArrayType(T.FloatType()))])
    with broadcast(spark, shared) as sent:
        ordered = ordered_events(own, partitions, context=shared.context)
        sample = ordered.mapInArrow(partial(_vectors, sent), schema).toPandas().sort_values("user_id")
    vectors = normalised(np.array(sample["vector"].tolist(), dtype=np.float32))
    what = f"users are in a sample of cluster.user_sample = {config.user_sample}"
    asked = candidates(config.user_k, "cluster.user_k", config.k_candidates, len(np.unique(vectors, axis=0)), what)
    centres = fit_clusters(vectors, asked, config).centres
    place, first, size = np.unique(nearest(vectors, centres)[0], return_index=True, return_counts=True)
    by_size: Doubles = centres[place[np.lexsort((first, -size))]]
    return by_size


def _user_id(events: DataFrame) -> T.StructField:
    return T.StructField("user_id", events.schema["user_id"].dataType)


def _vectors(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for user, queries in _queries(sent.value, batches):
        k = queries.shape[1]
        values = pa.array(queries.reshape(-1), pa.float32())
        vectors = pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, k), pa.int32()), values)
        yield pa.RecordBatch.from_arrays([pa.array(user), vectors], names=["user_id", "vector"])


def _groups(sent: Broadcast[_Shared], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    centres = sent.value.centres
    assert centres is not None
    for user, queries in _queries(sent.value, batches):
        group, distance = nearest(normalised(queries), centres)
        yield pa.RecordBatch.from_arrays(
            [pa.array(user), pa.array(group), pa.array(distance)], names=["user_id", "cluster_id", "distance"]
        )


def _queries(
    shared: _Shared, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[npt.NDArray[np.object_] | npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Users of a block and their query vectors, float32 [n_users, k]."""
    for block in user_blocks(batches, shared.feature_to_item, shared.context):
        yield block.user, user_queries(block, shared.machine, block)
