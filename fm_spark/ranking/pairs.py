"""Scores of any pairs of users and items, each user served from his history, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.core.context import ContextFields
from fm_spark.events.histories import SparkHistories
from fm_spark.events.sequences import TIME, VALUE, whole_users
from fm_spark.events.sources import PLACE
from fm_spark.events.user_columns import ATTRIBUTES
from fm_spark.ranking.blocks import broadcast
from fm_spark.ranking.pair_answers import INVALID, Answering, answers
from fm_spark.ranking.pair_input import ITEM, PAYLOAD, USER, Pairs
from fm_spark.ranking.serving import Serving
from fm_spark.ranking.top_n import as_of_newest

SCORE, RANK, SOURCE, CLASS, VOTERS = "score", "rank", "source", "predicted_class", "class_neighbours"
PREDICTION = {"squared": "predicted_rating", "logistic": "probability"}
"""The further column of a loss."""
ORDER, SAME = "_order", "_same"
_BLOCK_ROWS = 250_000
_PARTITION_ROWS = 500_000


@dataclass(frozen=True)
class Scored:
    """Scored pairs.

    Attributes:
        rows: user_id, :data:`PLACE`, :data:`PAYLOAD` and the columns of ``columns``; as many rows as pairs.
        columns: what was added, in order.
    """

    rows: DataFrame
    columns: tuple[str, ...]


@contextmanager
def scored_pairs(serving: Serving, pairs: Pairs, answering: Answering) -> Iterator[Scored]:
    """The answers for all pairs; to be used inside the ``with`` block.

    The pairs and the histories of their users meet in one shuffle by user; a task holds one block of users at a time.
    Pairs without an id that can be one are kept, with the source :data:`~fm_spark.ranking.pair_answers.INVALID`.
    """
    spark = serving.events.sparkSession
    context = as_of_newest(serving.machine.context, SparkHistories(serving.events))
    prediction = PREDICTION.get(serving.model.loss)
    added: list[tuple[str, T.DataType]] = [
        (SCORE, T.DoubleType()),
        *([(prediction, T.DoubleType())] if prediction else []),
    ]
    added += [(CLASS, T.DoubleType()), (VOTERS, T.IntegerType())] if answering.classes is not None else []
    added += [(SOURCE, T.StringType()), (RANK, T.IntegerType())]
    kept = [pairs.rows.schema[name] for name in (USER, PLACE, PAYLOAD)]
    schema = T.StructType([*kept, *[T.StructField(name, kind) for name, kind in added]])
    whole = F.col(USER).isNotNull() & F.col(ITEM).isNotNull()
    asked = pairs.rows.where(whole)
    rows = _with_histories(serving, asked, context)
    size = pairs.count + int(serving.catalogue.count.sum())
    partitions = max(spark.sparkContext.defaultParallelism, -(-size // _PARTITION_ROWS))
    together = rows.repartition(partitions, F.col(USER)).sortWithinPartitions(USER, ORDER, PLACE)
    shared = answering._replace(context=context)
    with broadcast(spark, shared) as sent:
        scored = together.mapInArrow(partial(_scored, sent, schema.names), schema)
        nothing = [F.lit(None).cast(kind).alias(name) for name, kind in added if name != SOURCE]
        bad = pairs.rows.where(~whole).select(USER, PLACE, PAYLOAD, *nothing, F.lit(INVALID).alias(SOURCE))
        yield Scored(scored.unionByName(bad), tuple(name for name, _ in added))


def _with_histories(serving: Serving, asked: DataFrame, context: ContextFields) -> DataFrame:
    """The pairs (:data:`ORDER` 0) and the events of their users (from 1 on), in the same columns."""
    events = serving.events.join(asked.select(USER).distinct(), USER, "left_semi")
    same = F.lit(True)
    if serving.unchanged is not None:
        asked = asked.join(serving.unchanged.select(USER, F.lit(True).alias(SAME)), USER, "left")
        same = F.coalesce(F.col(SAME), F.lit(False))
    attributes = F.lit(None).cast("map<string,array<string>>")
    if serving.users is not None:
        asked = asked.join(serving.users.withColumnRenamed("attributes", ATTRIBUTES), USER, "left")
        attributes = F.col(ATTRIBUTES)
    pair = {name: F.lit(None).cast(kind) for name, kind in _EVENT_COLUMNS.items()}
    pair |= {ORDER: F.lit(0), SAME: same, ATTRIBUTES: attributes}
    of_pair = asked.select(USER, ITEM, PLACE, PAYLOAD, *[column.alias(name) for name, column in pair.items()])
    event = {name: F.lit(None).cast(of_pair.schema[name].dataType) for name in (ITEM, PLACE, PAYLOAD, SAME, ATTRIBUTES)}
    event |= {name: F.col(name).cast(kind) for name, kind in _EVENT_COLUMNS.items() if name != TIME}
    event |= {TIME: F.unix_micros("time"), ORDER: F.col("position") + 1}
    if not context.time:
        event[TIME] = F.lit(None).cast("bigint")
    return of_pair.unionByName(events.select(USER, *[column.alias(name) for name, column in event.items()]))


_EVENT_COLUMNS = {"item_feature": "int", "label": "double", VALUE: "double", TIME: "bigint"}


def _scored(
    sent: Broadcast[Answering], names: list[str], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for table in whole_users(batches, _BLOCK_ROWS):
        is_pair = table[ORDER].to_numpy() == 0
        pairs = table.filter(pa.array(is_pair)).select([USER, PLACE, PAYLOAD])
        found = answers(table, is_pair, sent.value)
        source = pa.array(found.source_names).take(pa.array(found.source))
        columns = {
            SCORE: pa.array(found.score),
            **{name: pa.array(found.prediction) for name in PREDICTION.values() if found.prediction is not None},
            CLASS: pa.array(found.label if found.label is not None else np.empty(0)),
            VOTERS: pa.array(found.voters if found.voters is not None else np.empty(0, np.int32)),
            SOURCE: source,
            RANK: pa.array(found.rank),
        }
        for name in names[3:]:
            pairs = pairs.append_column(name, columns[name])
        yield from pairs.combine_chunks().to_batches()
