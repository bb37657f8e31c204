"""What a run of train reads, checked: events, items, fields, users, the model that it starts from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from fm_spark.config import Config
from fm_spark.core.context import ContextFields
from fm_spark.errors import InputError
from fm_spark.events.catalogue import Catalogue, load_catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.tables.contracts import EVENTS, ITEMS, VOCABULARY
from fm_spark.tables.runs import check_one_run, events_run_id
from fm_spark.tables.store import TableStore
from fm_spark.training.capacity import check_training
from fm_spark.training.context import ContextInput, context_input
from fm_spark.training.event_data import Users, find_users, needs_rows
from fm_spark.training.features import Side, context_names, item_features, side_fields
from fm_spark.training.resolve import DataSize
from fm_spark.training.warm_rows import FieldValues, Layout
from fm_spark.training.warm_start import WarmStart, find_old, warm_settings, warm_start


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        config: with the settings of the old model where it starts from one.
        versions: table -> version that was read.
        side: float32 CSR [n_items, n_side], side features of the items; None without any.
        asked: the events with the fields of time and of users' columns.
        users: None where users are no features.
        warm: what training starts from; None for a random start.
    """

    run_id: str
    config: Config
    versions: dict[str, int]
    catalogue: Catalogue
    size: DataSize
    side: sparse.csr_matrix | None
    asked: ContextInput
    users: Users | None
    warm: WarmStart | None

    @property
    def events_digest(self) -> str:
        """Of the events with the fields that training reads."""
        return self.size.digest + self.asked.digest


def read_run(store: TableStore, config: Config) -> RunData:
    """Reads the tables of the newest events, and refuses what cannot be trained before anything large is made.

    Raises:
        TableError: a table is missing.
        InputError: there is nothing to learn from.
        CapacityError: the configuration cannot fit in memory.
        ConfigError: ``train.warm_start`` names a model that training cannot go on from.
    """
    run_id = events_run_id(store, config)
    old = find_old(store, config.train.warm_start, run_id) if config.train.warm_start else None
    if old is not None:
        config = replace(config, train=warm_settings(config.train, old))
    versions = {contract.name: store.version(contract) for contract in (EVENTS, ITEMS, VOCABULARY)}
    check_one_run(store, versions)
    events = store.read(EVENTS, versions[EVENTS.name])
    catalogue = load_catalogue(store.rows(ITEMS, versions[ITEMS.name]))
    size = data_size(events)
    if size.positives == 0:
        raise InputError("no liked event in the training part; lower events.positive_threshold and run events again")
    asked = context_input(store, config, events, versions)
    check_training(store.spark, config, size, catalogue, asked.fields.n_rows)
    fields = side_fields(config.train, catalogue)
    features = item_features(catalogue, fields)
    users = find_users(events) if needs_rows(config.train) else None
    warm = None
    if old is not None:
        warm = warm_start(store, config, events, old, _layout(config, catalogue, users, features, asked.fields))
    return RunData(run_id, config, versions, catalogue, size, features.x if fields else None, asked, users, warm)


def _layout(config: Config, catalogue: Catalogue, users: Users | None, side: Side, context: ContextFields) -> Layout:
    """Values of the fields in the order of the machine's rows."""
    return Layout(
        [str(item) for item in catalogue.item_id],
        [FieldValues(part.field, part.names) for part in side.parts],
        [str(user) for user in users.ids] if users is not None else [],
        tuple(config.train.decays) if config.train.decays != "auto" else (),
        tuple(
            FieldValues(name, [UNSEEN, *values])
            for name, values in zip(context_names(context), context.values, strict=True)
        ),
    )


def data_size(events: DataFrame) -> DataSize:
    """Counts the training part, which the rules of ``auto`` follow from, and digests all events, in one pass."""
    known = F.col("split") == "train"
    liked = known & (F.col("label") > 0)
    content = F.xxhash64("user_id", "item_feature", "position", "value", "label", "weight", "split")
    row = events.agg(
        F.countDistinct(F.when(known, F.col("user_id"))).alias("users"),
        F.count(F.when(known, True)).alias("events"),
        F.count(F.when(liked, True)).alias("positives"),
        F.countDistinct(F.when(liked, F.col("item_feature"))).alias("items"),
        # neither depends on the order of rows; the low halves alone, because a sum of 64-bit hashes overflows
        F.bit_xor(content).alias("xor"),
        F.sum(content.bitwiseAND(F.lit(0xFFFFFFFF))).alias("sum"),
    ).first()
    if row is None:
        return DataSize(0, 0, 0, 0)
    return DataSize(row["users"], row["events"], row["positives"], row["items"], f"{row['xor']}/{row['sum']}")


def catalogue_digest(catalogue: Catalogue) -> str:
    """First 16 hex digits of a sha256 of the items: ids, features and what side features follow from, in order."""
    ids, features = catalogue.item_id.tolist(), catalogue.feature.tolist()
    items = zip(ids, features, catalogue.genres, catalogue.year, catalogue.attributes, strict=True)
    return hashlib.sha256(json.dumps(list(items), sort_keys=True).encode()).hexdigest()[:16]
