"""A trained machine over the newest tables: what came after the training is answered too, and told apart."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.config import Config
from fm_spark.core.queries import Ranker
from fm_spark.errors import ConfigError, TableError
from fm_spark.events.catalogue import Catalogue, load_catalogue
from fm_spark.events.vocabulary import UNSEEN
from fm_spark.ranking.inputs import check_finite
from fm_spark.tables.contracts import EVENTS, FM_MODEL, ITEMS, PUBLICATIONS, USERS
from fm_spark.tables.publications import published
from fm_spark.tables.runs import PUBLISH, ModelRecord, latest_model, model_by_name
from fm_spark.tables.store import TableStore
from fm_spark.training.loading import load_machine

log = logging.getLogger("fm_spark.ranking.serving")


@dataclass(frozen=True)
class Serving:
    """A model, and the newest events and items.

    Attributes:
        machine: over the items of ``catalogue``.
        catalogue: the items of the training with what was known of them then, and those that came later; counts are
            the newest ones.
        learnt: bool [n_items], items that the training knew; the others have what their side features say.
        events: the newest events.
        unchanged: user_id of the users whose events are those of the training; None when all are.
        users: user_id, attributes; None when the machine has no fields of users' columns.
    """

    model: ModelRecord
    machine: Ranker
    catalogue: Catalogue
    learnt: npt.NDArray[np.bool_]
    events: DataFrame
    unchanged: DataFrame | None
    users: DataFrame | None


def served_model(store: TableStore, config: Config) -> ModelRecord:
    """The model of ``score.model`` (a version or a run), of ``run.id``, of the newest publication, or the newest.

    Raises:
        ConfigError: there is no such model, or it is of another run than ``run.id``.
        TableError: there is no model at all.
    """
    name, run_id = config.score.model, config.run.id
    if name:
        model = model_by_name(store, name, "score.model")
        if run_id and model.run_id != run_id:
            raise ConfigError(
                f"score.model = {name!r} is of run {model.run_id}, and run.id = {run_id!r} asks for another run; "
                "leave one of them out"
            )
        return model
    if not run_id and store.exists(FM_MODEL) and store.exists(PUBLICATIONS):
        return model_by_name(store, published(store).model_version, f"the publication at {store.path(PUBLICATIONS)}")
    return latest_model(store, PUBLISH, run_id)


def load_serving(store: TableStore, model: ModelRecord) -> Serving:
    """Reads a model and lays it over the newest tables.

    Raises:
        TableError: a table is missing, or the tables are of runs that do not belong together.
        DivergenceError: a parameter of the model is not finite.
    """
    before = {table: model.input_versions.get(table.name) for table in (EVENTS, ITEMS)}
    newest = {table: store.version(table) for table in before}  # another job may write them meanwhile
    newer = {table for table, version in before.items() if version is not None and newest[table] != version}
    catalogue, learnt = load_catalogue(store.rows(ITEMS, before[ITEMS])), None
    if ITEMS in newer:
        catalogue, learnt = _grown(catalogue, load_catalogue(store.rows(ITEMS, newest[ITEMS])), store, model)
    machine = load_machine(store, model.model_version, catalogue, learnt)
    check_finite(machine, catalogue)
    events, unchanged = store.read(EVENTS, newest[EVENTS]), None
    if EVENTS in newer:
        then = store.read(EVENTS, before[EVENTS])
        _same_ids(then, events, store, model)
        unchanged = _fingerprint(then).join(_fingerprint(events), ["user_id", "n", "content"]).select("user_id")
        log.info("events newer than model %s are used for the users who have them", model.model_version)
    if learnt is None:
        learnt = np.ones(catalogue.n_items, np.bool_)
    users = store.read(USERS).select("user_id", "attributes") if machine.context.user else None
    return Serving(model, machine, catalogue, learnt, events, unchanged, users)


def _fingerprint(events: DataFrame) -> DataFrame:
    """user_id, n, content: one row a user; equal content is the same events up to a hash."""
    event = F.xxhash64("item_id", F.unix_micros("time"), "value", "label")
    return events.groupBy("user_id").agg(F.count(F.lit(1)).alias("n"), F.bit_xor(event).alias("content"))


def _same_ids(then: DataFrame, now: DataFrame, store: TableStore, model: ModelRecord) -> None:
    for name in ("user_id", "item_id"):
        kinds = [frame.schema[name].dataType.simpleString() for frame in (then, now)]
        if kinds[0] != kinds[1]:
            raise _mixed(store, model, f"{name} was {kinds[0]} and is {kinds[1]} now")


def _grown(
    then: Catalogue, now: Catalogue, store: TableStore, model: ModelRecord
) -> tuple[Catalogue, npt.NDArray[np.bool_]]:
    """The items of the training and, among them by their ids, those that came later; and which are the former."""
    if then.item_id.dtype.kind != now.item_id.dtype.kind and now.n_items and then.n_items:
        raise _mixed(store, model, f"item_id was of type {then.item_id.dtype} and is {now.item_id.dtype} now")
    place = {item: i for i, item in enumerate(then.item_id.tolist())}
    of_feature = {int(feature): i for i, feature in enumerate(then.feature)}
    counts, new = then.count.copy(), []
    for i, item in enumerate(now.item_id.tolist()):
        old = place.get(item)
        if of_feature.get(int(now.feature[i])) != old:
            raise _mixed(store, model, f"feature {now.feature[i]} is item {item} now, and was another one or none")
        if old is None:
            new.append(i)
        else:
            counts[old] = now.count[i]
    item_id = np.concatenate([then.item_id, now.item_id[new]])
    order = np.argsort(item_id, kind="stable")
    feature = np.concatenate([then.feature, now.feature[new]])[order]
    feature_to_item = np.full(int(feature.max(initial=-1)) + 1, -1, np.int32)
    feature_to_item[feature] = np.arange(len(feature), dtype=np.int32)
    columns = list(then.attributes[0]) if then.n_items else []
    # a column that the new items lack says nothing about them
    own = [{name: now.attributes[i].get(name, [UNSEEN]) for name in columns} for i in new]
    genres, year = [*then.genres, *(now.genres[i] for i in new)], [*then.year, *(now.year[i] for i in new)]
    attributes = [*then.attributes, *own]
    grown = Catalogue(
        item_id=item_id[order],
        title=np.concatenate([then.title, now.title[new]])[order],
        genres=[genres[j] for j in order],
        count=np.concatenate([counts, now.count[new]])[order],
        feature=feature,
        feature_to_item=feature_to_item,
        year=[year[j] for j in order],
        attributes=[attributes[j] for j in order],
    )
    return grown, order < then.n_items


def _mixed(store: TableStore, model: ModelRecord, what: str) -> TableError:
    return TableError(
        f"the tables at {store.root} are of runs that do not belong together: model {model.model_version} was trained "
        f"on other tables than the newest ones ({what}); train again, or give each input a tables.root of its own"
    )
