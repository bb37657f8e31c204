"""The best users for asked-for items and segments, exactly, as rows of the ``item_audience`` table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.config_sections import AudienceConfig
from fm_spark.core.audience import BestUsers, Targets, query_offsets, target_scores, targets
from fm_spark.core.context import ContextFields
from fm_spark.core.fm_machine import FmMachine
from fm_spark.core.item_scores import no_items, user_items
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import Sequences
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.events.histories import SparkHistories
from fm_spark.events.quality import Finding
from fm_spark.events.sequences import ordered_events
from fm_spark.filter_grammar import parse_filter
from fm_spark.ranking.blocks import broadcast, partitions_for, user_blocks
from fm_spark.ranking.filters import item_columns, item_mask
from fm_spark.ranking.top_n import as_of_newest

SOURCE = "model"
ITEM, SEGMENT = "item", "segment"
_SHOWN = 5
_PLACE = "_place"


@dataclass(frozen=True)
class Asked:
    """An item or a segment whose best users are asked for.

    Attributes:
        target: item id as text, or the segment's name.
        title: the item's title, or the segment's filter.
        items: int64, the item indices; a segment may have none.
    """

    kind: str
    target: str
    title: str
    items: npt.NDArray[np.int64]


class _Shared(NamedTuple):
    """What every task needs; sent once."""

    machine: Ranker
    context: ContextFields
    targets: Targets
    feature_to_item: npt.NDArray[np.int32]


def asked_for(config: AudienceConfig, catalogue: Catalogue, tags: Sequence[Sequence[str]]) -> list[Asked]:
    """The items of ``audience.items``, then the segments of ``audience.segments``, each once and in their order.

    Args:
        tags: of each item of the catalogue, for filters.

    Raises:
        ConfigError: an item that is not in the catalogue, a filter that does not fit it, or nothing asked for.
    """
    if not config.items and not config.segments:
        raise ConfigError(
            "audience.items = [] and audience.segments = {} ask for nothing; give item ids, for example "
            "--set 'audience.items=[318]', or a filter, for example "
            "--set \"audience.segments.comedies=genres contains 'Comedy'\""
        )
    asked = _items(list(dict.fromkeys(map(str, config.items))), catalogue)
    columns = item_columns(catalogue, tags) if config.segments else {}
    for name, text in config.segments.items():
        key = f"audience.segments.{name}"
        mask = item_mask(parse_filter(text, key), columns, key)
        asked.append(Asked(SEGMENT, name, text, np.flatnonzero(mask)))
    return asked


def _items(ids: list[str], catalogue: Catalogue) -> list[Asked]:
    place = {str(item): i for i, item in enumerate(catalogue.item_id)} if ids else {}
    unknown = [item for item in ids if item not in place]
    if unknown:
        more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        raise ConfigError(
            f"audience.items names {len(unknown):,} of {len(ids):,} items that are not in the catalogue: "
            f"{', '.join(unknown[:_SHOWN])}{more}; give values of item_id in the table items"
        )
    return [Asked(ITEM, item, str(catalogue.title[place[item]]), np.array([place[item]])) for item in ids]


def empty_audiences(asked: Sequence[Asked], users: Mapping[tuple[str, str], int]) -> list[Finding]:
    """What ``data_quality`` says about the items and segments that nobody is in.

    Args:
        users: how many users each has, by (kind, target).
    """
    why = {False: "no item passes its filter", True: "every user has seen all of it"}
    return [
        Finding(
            f"empty_audience:{one.kind}:{one.target}",
            len(one.items),
            "counted",
            f"{one.kind} {one.target} ({one.title}) has no users: {why[len(one.items) > 0]}",
        )
        for one in asked
        if users[one.kind, one.target] == 0
    ]


@contextmanager
def audience_rows(
    events: DataFrame, machine: Ranker, catalogue: Catalogue, asked: Sequence[Asked], config: AudienceConfig
) -> Iterator[DataFrame]:
    """The rows of ``item_audience`` but for run and model; to be used inside the ``with`` block.

    Users are ranked in blocks, and a task keeps the best ``audience.n`` users of each target, so its memory does not
    grow with the number of users. Fields of time are those of the newest event, for everybody.

    Args:
        events: the ``events`` table; the queries come from all events in it.
    """
    spark = events.sparkSession
    loss = machine.loss if isinstance(machine, FmMachine) else "softmax"
    groups = [one.items for one in asked]
    context = as_of_newest(machine.context, SparkHistories(events))
    laid_out = targets(machine.item_factors, machine.item_bias, groups, config.segment_score, loss)
    shared = _Shared(machine, context, laid_out, catalogue.feature_to_item)
    of_user = events.schema["user_id"].dataType
    schema = T.StructType(
        [
            T.StructField(_PLACE, T.IntegerType()),
            T.StructField("user_id", of_user),
            T.StructField("score", T.DoubleType()),
        ]
    )
    best_first = Window.partitionBy(_PLACE).orderBy(F.col("score").desc(), "user_id")
    names = spark.createDataFrame(
        [(place, one.kind, one.target, one.title) for place, one in enumerate(asked)],
        f"{_PLACE} int, kind string, target string, title string",
    )
    with broadcast(spark, shared) as sent:
        ordered = ordered_events(events, partitions_for(spark, catalogue), context=context)
        best = ordered.mapInArrow(partial(_best, sent, config.n, config.exclude_seen), schema)
        ranked = best.withColumn("rank", F.row_number().over(best_first)).where(F.col("rank") <= config.n)
        yield ranked.join(F.broadcast(names), on=_PLACE, how="inner").select(
            "kind", "target", "title", "rank", "user_id", "score", F.lit(SOURCE).alias("source")
        )


def _best(
    sent: Broadcast[_Shared], n: int, exclude_seen: bool, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    shared = sent.value
    best = BestUsers(len(shared.targets.members), n)
    # blocks come in the order of the users, so that equal scores stay in it
    for block in user_blocks(batches, shared.feature_to_item, shared.context):
        best.add(block.user, _block_scores(shared, exclude_seen, block))
    for place, users, score in best.lists():
        yield pa.RecordBatch.from_arrays(
            [pa.array(np.full(len(users), place, np.int32)), pa.array(users), pa.array(score)],
            names=[_PLACE, "user_id", "score"],
        )


def _block_scores(shared: _Shared, exclude_seen: bool, block: Sequences) -> npt.NDArray[np.float64]:
    machine = shared.machine
    seen = user_items(block.ptr, block.item, block.item >= 0) if exclude_seen else no_items(block.n_users)
    queries = user_queries(block, machine, block)
    if not (isinstance(machine, FmMachine) and shared.targets.pointwise):
        return target_scores(shared.targets, queries, seen)
    return target_scores(shared.targets, queries, seen, query_offsets(block, machine, queries), machine.limits)
