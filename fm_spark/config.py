"""Configuration: TOML files laid over ``conf/base.toml``, checked key by key, frozen.

``conf/base.toml`` is the only place that holds defaults; types, ranges and choices are in
:mod:`fm_spark.config_sections`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from fm_spark.config_checks import check_together
from fm_spark.config_sections import (
    AudienceConfig,
    ClusterConfig,
    EventsConfig,
    ForgetConfig,
    InputConfig,
    MaintainConfig,
    PlanConfig,
    PopularConfig,
    PublishConfig,
    RecommendConfig,
    ReportConfig,
    RerankConfig,
    RunConfig,
    ScoreConfig,
    SimilarConfig,
    TablesConfig,
    TrainConfig,
)
from fm_spark.config_values import checked, nearest
from fm_spark.errors import ConfigError
from fm_spark.secrecy import as_written, check_not_secret, masked, resolve


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration of a run; one attribute a section."""

    run: RunConfig
    input: InputConfig
    tables: TablesConfig
    events: EventsConfig
    train: TrainConfig
    recommend: RecommendConfig
    cluster: ClusterConfig
    popular: PopularConfig
    similar: SimilarConfig
    audience: AudienceConfig
    publish: PublishConfig
    score: ScoreConfig
    rerank: RerankConfig
    report: ReportConfig
    plan: PlanConfig
    maintain: MaintainConfig
    forget: ForgetConfig

    def to_json(self) -> str:
        """The effective configuration as JSON with sorted keys, ``${ENV:...}`` as written; stored with every model."""
        return json.dumps(as_written(asdict(self)), sort_keys=True)

    def digest(self) -> str:
        """First 12 hex digits of the sha256 of :meth:`to_json` without ``[run]``: runs of equal settings share it."""
        settings = {name: values for name, values in json.loads(self.to_json()).items() if name != "run"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


_SECTIONS: dict[str, type[Any]] = {name: hint for name, hint in get_type_hints(Config).items() if name != "return"}
BASE_FILE = Path(__file__).resolve().parent.parent / "conf" / "base.toml"


def known_keys() -> list[str]:
    """Every ``section.key`` that a configuration may hold, in the order of ``conf/base.toml``."""
    return [f"{section}.{f.name}" for section, cls in _SECTIONS.items() for f in fields(cls)]


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads ``conf/base.toml``, lays ``path`` and then every ``section.key=value`` of ``overrides`` on top.

    Args:
        path: a TOML file with any subset of the keys; ``None`` uses the defaults alone.
        overrides: ``section.key=value`` strings; the value is TOML (``0.1``, ``true``, ``[1, 2]``), and a word that
            is not valid TOML is taken as a string. ``section.key.name=value`` sets one name of a key that is a table.

    Raises:
        ConfigError: missing or unreadable file, unknown key, wrong type or value out of range.
    """
    values = _read_toml(BASE_FILE)
    _check_known(values, str(BASE_FILE.name))
    if path is not None:
        layer = _read_toml(Path(path))
        _check_known(layer, str(path))
        _overlay(values, layer)
    for text in overrides:
        layer = _parse_override(text, values)
        _check_known(layer, "--set")
        _overlay(values, layer)
    return _build(values)


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration file {path} ({error.strerror}); give an existing TOML file with --config, "
            "for example conf/local.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _parse_override(text: str, values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The key of one ``--set``; of a key that is a table, what ``values`` holds with one name added or replaced."""
    key, separator, raw = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not separator or not dot or not name:
        raise ConfigError(f"--set {masked(text)!r} is not of the form section.key=value, for example recommend.n=10")
    raw = raw.strip()
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    table, dot, inner = name.partition(".")
    there = values.get(section, {}).get(table)
    if dot and inner and isinstance(there, Mapping):
        return {section: {table: {**there, inner: value}}}
    return {section: {name: value}}


def _check_known(values: Mapping[str, Any], origin: str) -> None:
    known = known_keys()
    for section, keys in values.items():
        if section not in _SECTIONS and not isinstance(keys, Mapping):
            raise ConfigError(f"{section} = {keys!r} in {origin} stands in no section; put it under one, e.g. [train]")
        if section not in _SECTIONS:
            hint = nearest(section, list(_SECTIONS))
            raise ConfigError(f"unknown section [{section}] in {origin}{hint}; known sections: {', '.join(_SECTIONS)}")
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{section} in {origin} must be a section, [{section}], with keys of its own")
        for name in keys:
            full = f"{section}.{name}"
            check_not_secret(full, keys[name])  # before any message shows the value
            if full not in known:
                allowed = ", ".join(f.name for f in fields(_SECTIONS[section]))
                raise ConfigError(
                    f"unknown key {full} (value {keys[name]!r}) in {origin}{nearest(full, known)}; "
                    f"keys of [{section}]: {allowed}"
                )


def _overlay(values: dict[str, dict[str, Any]], layer: Mapping[str, Mapping[str, Any]]) -> None:
    for section, keys in layer.items():
        values.setdefault(section, {}).update(keys)


def _build(values: Mapping[str, Mapping[str, Any]]) -> Config:
    sections = {}
    for section, cls in _SECTIONS.items():
        hints = get_type_hints(cls)
        given = values.get(section, {})
        missing = [f.name for f in fields(cls) if f.name not in given]
        if missing:
            raise ConfigError(f"{section}.{missing[0]} has no value; conf/base.toml must hold every key")
        sections[section] = cls(
            **{
                f.name: checked(key, resolve(key, given[f.name]), hints[f.name], f.metadata)
                for f in fields(cls)
                for key in [f"{section}.{f.name}"]
            }
        )
    config = Config(**sections)
    check_together(config)
    return config
