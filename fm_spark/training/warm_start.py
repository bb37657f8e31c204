"""``train.warm_start``: which model is continued, with which settings, and that nothing of the test part leaks.

The machine that is measured goes on from the old run's measured machine, the published one from the old published one.
There is no tuning: a validation part of the new log may have trained the old machines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.config import Config
from fm_spark.config_sections import EventsConfig, TrainConfig
from fm_spark.errors import ConfigError, TableError
from fm_spark.tables.contracts import EVENTS, FM_MODEL, FM_PARAMETERS
from fm_spark.tables.runs import EVALUATION, PUBLISH, ModelRecord, model_records
from fm_spark.tables.store import TableStore
from fm_spark.training import blocks
from fm_spark.training.features import BAG, ITEM, USER, history_fields
from fm_spark.training.resolve import uses_bag, uses_user
from fm_spark.training.warm_rows import Layout, OldRows, continued, old_rows

log = logging.getLogger("fm_spark.train")

LATEST = "latest"
# of the run that started from random rows, however often it was continued since
FULL_EPOCHS, FULL_RATE = "full_epochs", "full_learning_rate"
# a continued fit makes this share of those epochs, beginning at the rate after that share (docs/configuration.md)
_EPOCHS_SHARE, _RATE_SHARE = 1 / 4, 1 / 3
_NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("bias_rate", "w0_rate", "l2", "l2_bias", "l2_bag", "target_decay"), float),
    **dict.fromkeys(("batch_size", "negatives"), int),
}
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class OldModels:
    """The two machines of an old run."""

    publish: ModelRecord
    evaluation: ModelRecord

    @property
    def full_epochs(self) -> int:
        """Epochs of the run that started from random rows."""
        return int(self.publish.hyperparameters.get(FULL_EPOCHS, self.publish.epochs))

    @property
    def full_rate(self) -> float:
        """Learning rate of that run's first epoch."""
        settings = self.publish.hyperparameters
        return float(settings.get(FULL_RATE, settings["learning_rate"]))

    @property
    def members(self) -> int:
        """Machines that each is the mean of."""
        return int(self.publish.hyperparameters.get("ensemble", 1))


@dataclass(frozen=True)
class WarmStart:
    """What the fits of a run start from; ``old`` is by stage."""

    old: dict[str, OldRows]
    layout: Layout
    full_epochs: int
    full_rate: float

    def start(self, stage: str, learnt: Any) -> Any:
        """``learnt``, a machine before its first round, with the old machine's rows in place of random ones."""
        return continued(self.old[stage], learnt, self.layout, self.full_epochs)

    def describe(self, stage: str) -> dict[str, str]:
        """What ``fm_model.hyperparameters`` says of it."""
        full = {FULL_EPOCHS: str(self.full_epochs), FULL_RATE: f"{self.full_rate:g}"}
        return {"warm_start": self.old[stage].model_version, **full}


def find_old(store: TableStore, name: str, run_id: str) -> OldModels:
    """The models that ``train.warm_start`` names: a model version, a run, or the newest published one of another run.

    Raises:
        ConfigError: there is no such model, or it is of the run itself.
        TableError: there is no model at all, or the one that is measured is missing.
    """
    key = f"train.warm_start = {name!r}"
    cure = 'train without it first (train.warm_start = "")'
    if not store.exists(FM_MODEL):
        raise TableError(f"{key}: there is no model yet at {store.path(FM_MODEL)}; {cure}")
    found = model_records(store)
    published = [one for one in found if one.purpose == PUBLISH]
    others = [one for one in published if one.run_id != run_id]
    named = others if name == LATEST else [one for one in found if name in (one.model_version, one.run_id)]
    if not named:
        known = [one.model_version for one in others]
        more = f" and {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""
        there = f"there are {', '.join(known[:_NAMES_SHOWN])}{more}" if known else "there is none of another run"
        raise ConfigError(f"{key} is no published model at {store.path(FM_MODEL)}; {there}")
    old_run = named[0].run_id
    if old_run == run_id:
        raise ConfigError(f"{key} is of this very run, whose models are replaced; start another one (--run-id)")
    of_run = {one.purpose: one for one in found if one.run_id == old_run}
    for purpose in (PUBLISH, EVALUATION):
        if purpose not in of_run:
            raise TableError(
                f"{key}: run {old_run} has no model with purpose {purpose}, and without it what is measured would have "
                f"seen the test part; {cure}"
            )
    return OldModels(of_run[PUBLISH], of_run[EVALUATION])


def warm_settings(config: TrainConfig, old: OldModels) -> TrainConfig:
    """The settings with every ``auto`` resolved from the old model.

    Raises:
        ConfigError: the configuration asks for another machine; both values are named.
    """
    model, settings = old.publish, old.publish.hyperparameters
    _same(config, "loss", config.loss, model.loss, model)
    _same(config, "ensemble", config.ensemble, old.members, model)
    _same(config, "k", config.k, model.k // old.members, model)
    if config.loss == "softmax":
        decays = list(model.decays)
        _same(config, "decays", decays if config.decays == "auto" else config.decays, decays, model)
        config = replace(config, decays=decays)
    else:
        flags: dict[str, Any] = {
            name: settings[name] == "true" for name in (USER, BAG) if getattr(config, name) == "auto"
        }
        config = replace(config, **flags)
    auto = [name for name in _NUMBERS if getattr(config, name) == "auto" and name in settings]
    config = replace(config, **{name: _NUMBERS[name](float(settings[name])) for name in auto})
    epochs = max(1, round(_EPOCHS_SHARE * old.full_epochs)) if config.epochs == "auto" else config.epochs
    rate, decay = config.learning_rate, config.learning_rate_decay
    decay = float(settings["learning_rate_decay"]) if decay == "auto" else decay
    rate = old.full_rate * decay ** (_RATE_SHARE * old.full_epochs) if rate == "auto" else rate
    version = model.model_version
    return replace(config, epochs=epochs, learning_rate=rate, learning_rate_decay=decay, warm_start=version)


def _same(config: TrainConfig, key: str, own: object, old: object, model: ModelRecord) -> None:
    if own != old:
        raise ConfigError(
            f"train.{key} = {own!r}, and train.warm_start = {config.warm_start!r} is {model.model_version} with "
            f"{old!r}; give train.{key} = {old!r}, or train without train.warm_start"
        )


def check_fields(config: TrainConfig, layout: Layout, old: OldModels, found: Collection[str]) -> None:
    """Checks that the old machine has exactly the fields of the new one.

    Args:
        found: fields of the old machine's rows.

    Raises:
        ConfigError: the message names the fields of both.
    """
    wanted = {ITEM, *(field for field, _ in (*layout.side, *layout.context))}
    if config.loss == "softmax":
        wanted |= set(history_fields(tuple(old.publish.decays)))
    else:
        wanted |= {field for field, used in ((USER, uses_user(config)), (BAG, uses_bag(config))) if used}
    if wanted != set(found):
        raise ConfigError(
            f"train.warm_start = {config.warm_start!r}: {old.publish.model_version} has the fields "
            f"{', '.join(sorted(found))}, and this configuration and input ask for {', '.join(sorted(wanted))}; switch "
            "the same fields on, or train without train.warm_start"
        )


def check_no_leak(store: TableStore, config: Config, events: DataFrame, old: OldModels) -> None:
    """Checks that the old measured machine was not trained on an event that is held out now.

    Raises:
        ConfigError: the splits are cut differently, or events of the old training part are held out now.
    """
    now, then = asdict(config.events), _events_config(old.evaluation)
    key = f"train.warm_start = {config.train.warm_start!r}"
    for name, value in now.items():
        if name in then and then[name] != value:
            raise ConfigError(
                f"{key}: events.{name} = {value!r} and was {then[name]!r}, so that the old machine may have been "
                f"trained on the test part; give events.{name} = {then[name]!r}, or train without train.warm_start"
            )
    leaked = _leaked(store, events, old)
    if leaked:
        raise ConfigError(
            f"{key}: {old.evaluation.model_version} was trained on {leaked:,} events that are held out now (events "
            "were removed, or added before old ones), so that it would be measured on what it has seen; train without "
            "train.warm_start"
        )


def _events_config(model: ModelRecord) -> dict[str, Any]:
    section = json.loads(model.config).get("events", {})
    return {name: section[name] for name in EventsConfig.__dataclass_fields__ if name in section}


def _leaked(store: TableStore, events: DataFrame, old: OldModels) -> int:
    version = old.evaluation.input_versions.get(EVENTS.name)
    event = [F.col(name).cast("string").alias(name) for name in ("user_id", "item_id", "time")]
    try:
        then = store.read(EVENTS, version).where(F.col("split") == "train").select(*event)
        now = events.where(F.col("split") != "train").select(*event)
        return now.join(then, on=["user_id", "item_id", "time"], how="left_semi").count()
    except (PySparkException, Py4JError, TableError):
        log.warning(
            "version %s of the events, which %s was trained on, is gone: that none of them is held out now follows "
            "from the same settings of [events] alone", version, old.evaluation.model_version,
        )  # fmt: skip
        return 0


def load_old(store: TableStore, old: OldModels) -> dict[str, OldRows]:
    """The rows of the old machines by stage of the new run."""
    loaded = {}
    for stage, model in ((blocks.EVALUATION, old.evaluation), (blocks.PUBLISH, old.publish)):
        columns, of_model = ("field", "value", "bias", "factors", "count"), {"model_version": model.model_version}
        rows = store.rows(FM_PARAMETERS, columns=columns, where=of_model).to_pandas()
        loaded[stage] = old_rows(model.model_version, rows, model.w0, old.members)
    return loaded


def warm_start(store: TableStore, config: Config, events: DataFrame, old: OldModels, layout: Layout) -> WarmStart:
    """Reads the old machines and checks that they can be continued.

    Args:
        config: of :func:`warm_settings`; events: the events that the new run trains on and measures with.

    Raises:
        ConfigError: as :func:`check_fields` and :func:`check_no_leak`.
    """
    check_no_leak(store, config, events, old)
    loaded = load_old(store, old)
    check_fields(config.train, layout, old, loaded[blocks.PUBLISH].fields)
    log.info(
        "going on from %s: %d epochs, learning rate %g",
        old.publish.model_version, config.train.epochs, config.train.learning_rate,
    )  # fmt: skip
    return WarmStart(loaded, layout, old.full_epochs, old.full_rate)
