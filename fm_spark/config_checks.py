"""What keys of a configuration must fulfil together; each key alone is checked when it is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fm_spark.errors import ConfigError
from fm_spark.filter_grammar import parse_filter
from fm_spark.locations import check_location, check_output
from fm_spark.named_lists import named_lists

if TYPE_CHECKING:
    from fm_spark.config import Config
    from fm_spark.config_sections import AudienceConfig, TrainConfig

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# keys of [train] that only one kind of machine reads, and the losses that do
_OF_SOFTMAX = ("decays", "target_decay", "batch_size")
_OF_EVENTS = ("user", "bag", "average_from", "l2_bag", "w0_rate", "l2_w0")
_METRIC_OF = {"rmse": "squared", "log_loss": "logistic"}


def check_together(config: Config) -> None:
    """Refuses keys that do not fit together.

    Raises:
        ConfigError: the message names the key, the value and the cure.
    """
    low_high = config.input.value_range
    if low_high and (len(low_high) != 2 or low_high[0] >= low_high[1]):
        raise ConfigError(f"input.value_range = {low_high!r} must be [] or [least, greatest] with least < greatest")
    if config.run.id and not _RUN_ID.fullmatch(config.run.id):
        raise ConfigError(
            f"run.id = {config.run.id!r} may hold letters, digits, '.', '_' and '-' only, 64 at most, "
            "and starts with a letter or digit"
        )
    if not config.input.path.strip():
        raise ConfigError("input.path is empty; give the folder or file with the events")
    if not config.tables.root.strip():
        raise ConfigError("tables.root is empty; give the folder for the tables")
    check_output("tables.root", config.tables.root)
    for name, pairs in (("score", config.score), ("rerank", config.rerank)):
        check_location(f"{name}.input", pairs.input)
        check_output(f"{name}.output", pairs.output)
    for name in ("path", "items_path", "users_path"):
        check_location(f"input.{name}", getattr(config.input, name))
    if len(config.input.delimiter) != 1:
        raise ConfigError(f"input.delimiter = {config.input.delimiter!r} must be one character")
    if not config.cluster.k_candidates:
        raise ConfigError("cluster.k_candidates = [] leaves nothing to choose from; give numbers, for example [8, 16]")
    named_lists(config.recommend)
    _check_audience(config.audience)
    _check_train(config.train)


def check_asked(job: str, config: Config) -> None:
    """Refuses a job that was not told what to do, before anything is started for it.

    Raises:
        ConfigError: the message names what is missing.
    """
    pairs = f"give a CSV, Parquet or Delta with the columns {config.score.user_column} and {config.score.item_column}"
    needed: dict[str, tuple[object, str]] = {
        "rollback": (
            config.run.id,
            "rollback needs the run to go back to: --to RUN_ID; ./spark-submit.sh history lists them",
        ),
        "forget": (
            config.forget.users,
            "forget needs at least one person: --user ID, as in the input; may be repeated",
        ),
        "score": (config.score.input.strip(), f"score.input is empty; {pairs}"),
        "rerank": (config.rerank.input.strip(), f"rerank.input is empty; {pairs}"),
    }
    given, message = needed.get(job, (True, ""))
    if not given:
        raise ConfigError(message)


def _check_audience(audience: AudienceConfig) -> None:
    for name, text in audience.segments.items():
        key = f"audience.segments.{name}"
        if not name.strip() or not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{key} = {text!r} must be a filter, for example \"genres contains 'Comedy'\"")
        parse_filter(text, key)


def _check_train(train: TrainConfig) -> None:
    loss = f"train.loss = {train.loss!r}"
    if len(set(train.time)) < len(train.time):
        raise ConfigError(f"train.time = {train.time!r} names a field twice; name each once")
    if train.decays == []:
        raise ConfigError('train.decays = [] leaves no history; give at least one decay or "auto"')
    for key in _OF_EVENTS if train.loss == "softmax" else _OF_SOFTMAX:
        value = getattr(train, key)
        if value not in ("auto", False, 0):
            raise ConfigError(f'train.{key} = {value!r} has no meaning with {loss}; leave it at "auto"')
    if train.optimizer != "adagrad" and train.local_steps == "on":
        raise ConfigError(
            f'train.optimizer = {train.optimizer!r} is a step of the driver, and with train.local_steps = "on" the '
            'blocks make the steps; give train.local_steps = "off" as well, or leave train.optimizer at "adagrad"'
        )
    metric = train.validation_metric
    if _METRIC_OF.get(metric, train.loss) != train.loss:
        raise ConfigError(
            f"train.validation_metric = {metric!r} measures train.loss = {_METRIC_OF[metric]!r} only, and {loss}; "
            'give "auto"'
        )
    if train.loss != "softmax" and train.user is False and train.bag is False:
        raise ConfigError(
            f"train.user = false and train.bag = false leave nothing that tells users apart with {loss}; "
            "switch one of them on"
        )
    if train.loss == "bpr" and train.bag is False and train.user == "auto":
        raise ConfigError("train.bag = false leaves 'bpr' without a user; give train.user = true as well")
    if train.average_from != "auto" and train.epochs != "auto" and train.average_from > train.epochs:
        raise ConfigError(
            f"train.average_from = {train.average_from} lies after train.epochs = {train.epochs}, so that nothing is "
            'averaged; give a smaller one, 0 for no averaging, or "auto"'
        )
