"""What every job that uses a trained machine reads: the model, the events and the catalogue it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from fm_spark.config import Config
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker
from fm_spark.errors import DivergenceError
from fm_spark.events.catalogue import Catalogue, load_catalogue
from fm_spark.events.user_columns import with_attributes
from fm_spark.tables.contracts import EVENTS, ITEMS, USERS
from fm_spark.tables.runs import ModelRecord, latest_model, model_run_id
from fm_spark.tables.store import TableStore
from fm_spark.training.loading import load_machine


@dataclass(frozen=True)
class RankingInputs:
    """A model with the tables that it was trained on, at the versions that training read.

    Attributes:
        items: the rows of the table.
    """

    store: TableStore
    model: ModelRecord
    machine: Ranker
    catalogue: Catalogue
    items: pa.Table

    @cached_property
    def events(self) -> DataFrame:
        """The events, with the attributes of the users where the machine has fields of them."""
        versions = self.model.input_versions
        events = self.store.read(EVENTS, versions.get(EVENTS.name))
        if not self.machine.context.user:
            return events
        return with_attributes(events, self.store.read(USERS, versions.get(USERS.name)))


def load_inputs(store: TableStore, config: Config, purpose: str) -> RankingInputs:
    """Reads the newest model of the purpose, of ``run.id`` or of the newest run that serves readers.

    Raises:
        TableError: there is no such model, or a table is missing.
        DivergenceError: a parameter of the model is not finite; the message names an item.
    """
    model = latest_model(store, purpose, model_run_id(store, config))
    items = store.rows(ITEMS, model.input_versions.get(ITEMS.name))
    catalogue = load_catalogue(items)
    machine = load_machine(store, model.model_version, catalogue)
    check_finite(machine, catalogue)
    return RankingInputs(store, model, machine, catalogue, items)


def check_finite(machine: Ranker, catalogue: Catalogue) -> None:
    """Refuses a machine that holds a number that is not finite.

    Raises:
        DivergenceError: names the first item that has one, or the fields of time and users.
    """
    if machine.context_factors is not None and not np.isfinite(machine.context_factors).all():
        raise DivergenceError(
            "the model has parameters that are not finite in a field of time or of the users' columns; train again "
            "with a smaller train.learning_rate"
        )
    finite = np.isfinite(machine.item_bias) & np.isfinite(machine.item_factors).all(axis=1)
    if isinstance(machine, Machine):
        finite &= np.isfinite(machine.history).all(axis=(0, 1, 3))
    elif machine.fields.n_bag:
        finite &= np.isfinite(machine.parameters.factors[machine.fields.bag_offset :]).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DivergenceError(
            f"the model has parameters that are not finite for {np.count_nonzero(~finite)} items, first "
            f"{catalogue.item_id[first]} ({catalogue.title[first]}); train again with a smaller train.learning_rate"
        )
