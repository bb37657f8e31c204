"""The counts that a plan is made for: from the tables when they are there, from ``[plan]`` where it gives them."""

from __future__ import annotations

from fm_spark.config import Config
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import load_catalogue
from fm_spark.tables.contracts import EVENTS, ITEMS
from fm_spark.tables.store import TableStore
from fm_spark.training.context import context_input
from fm_spark.training.planning import Counts, counts_of_tables, overridden
from fm_spark.training.run_data import data_size

_NEEDED = ("users", "events", "positives", "items")


def find_counts(store: TableStore, config: Config) -> Counts:
    """Counts of ``[plan]``, the rest from the tables.

    Raises:
        ConfigError: a count is neither given nor in a table, or more events are liked than there are.
    """
    missing = [name for name in _NEEDED if not getattr(config.plan, name)]
    found = None
    if missing:
        if not (store.exists(EVENTS) and store.exists(ITEMS)):
            raise ConfigError(
                f"plan.{missing[0]} = 0 means to count the tables, and there are none under {store.root}; give "
                f"{', '.join(f'plan.{name}' for name in missing)}, or run ./spark-submit.sh events first"
            )
        events = store.read(EVENTS)
        context = context_input(store, config, events, {}).fields
        found = counts_of_tables(config, data_size(events), load_catalogue(store.rows(ITEMS)), context.n_rows)
    counts = overridden(config, found)
    if counts.positives > counts.events:
        raise ConfigError(
            f"plan.positives = {counts.positives} is more than plan.events = {counts.events}; "
            "positives are the liked ones among the events"
        )
    if not counts.positives:
        raise ConfigError("no event is liked, so there is nothing to plan for; lower events.positive_threshold")
    return counts
