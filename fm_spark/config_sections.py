"""The sections of a configuration: every key with its type, range and choices; the defaults are in conf/base.toml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Auto = Literal["auto"]


def _limits(
    least: float | None = None, most: float | None = None, above: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """Dataclass field with a legal range (inclusive ``least``/``most``, exclusive ``above``) or choices."""
    return field(metadata={"least": least, "most": most, "above": above, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Which run the rows belong to, and how its jobs take turns with others."""

    id: str
    lock_wait_seconds: float = _limits(least=0.0)
    lock_lease_seconds: float = _limits(least=1.0)


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Where the interactions are and how to read them."""

    path: str
    format: str = _limits(choices=("auto", "movielens", "csv", "parquet", "delta"))
    bad_rows: str = _limits(choices=("fail", "drop"))
    user_column: str
    item_column: str
    time_column: str
    value_column: str
    weight_column: str
    id_type: str = _limits(choices=("auto", "integer", "string"))
    time_unit: str = _limits(choices=("seconds", "milliseconds", "timestamp"))
    delimiter: str
    value_range: list[float]
    items_path: str
    items_id_column: str
    items_title_column: str
    items_genres_column: str
    items_year_column: str
    item_columns: list[str]
    users_path: str
    users_id_column: str
    user_columns: list[str]


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Where the Delta tables live."""

    root: str


@dataclass(frozen=True, kw_only=True)
class EventsConfig:
    """How interactions become labelled, split events."""

    positive_threshold: float
    split: str = _limits(choices=("user_time", "global_time", "random"))
    test_fraction: float = _limits(above=0.0, most=0.9)
    min_positives: int = _limits(least=2)
    seed: int = _limits(least=0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The factorization machine and how it is trained."""

    loss: str = _limits(choices=("softmax", "squared", "logistic", "bpr"))
    k: int = _limits(least=1, most=1024)
    ensemble: int = _limits(least=1, most=64)
    epochs: int | Auto = _limits(least=1)
    learning_rate: float | Auto = _limits(above=0.0)
    learning_rate_decay: float | Auto = _limits(above=0.0, most=1.0)
    bias_rate: float | Auto = _limits(above=0.0)
    w0_rate: float | Auto = _limits(least=0.0)
    l2: float | Auto = _limits(least=0.0)
    l2_bias: float | Auto = _limits(least=0.0)
    l2_bag: float | Auto = _limits(least=0.0)
    l2_w0: float = _limits(least=0.0)
    batch_size: int | Auto = _limits(least=1)
    negatives: int | Auto = _limits(least=1)
    negatives_power: float = _limits(least=0.0, most=1.0)
    decays: list[float] | Auto = _limits(above=0.0, most=0.9999)
    target_decay: float | Auto = _limits(least=0.0, most=0.99)
    user: bool | Auto
    bag: bool | Auto
    genres: bool
    year: bool
    tags: bool
    time: list[str] = _limits(choices=("hour_of_week", "days_since_first", "calendar"))
    average_from: int | Auto = _limits(least=0)
    init_std: float | Auto = _limits(above=0.0)
    local_steps: str = _limits(choices=("on", "off"))
    optimizer: str = _limits(choices=("adagrad", "adam"))
    blocks: int | Auto = _limits(least=1)
    rounds: int | Auto = _limits(least=1)
    trust_region: float = _limits(least=0.0)
    validation_fraction: float = _limits(above=0.0, most=0.9)
    validation_users: int = _limits(least=1)
    validation_metric: str = _limits(choices=("auto", "ndcg_at_10", "recall_at_20", "rmse", "log_loss"))
    patience: int = _limits(least=1)
    tune_seconds: float = _limits(least=0.0)
    refit: bool
    warm_start: str
    checkpoint_rounds: int = _limits(least=0)
    checkpoint_minutes: float = _limits(least=0.0)
    retry_diverged: bool
    seed: int = _limits(least=0)


@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """The top-N lists."""

    n: int = _limits(least=1)
    exclude_seen: bool
    lists: dict[str, Any]
    explain: bool
    diversity: float = _limits(least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The item clusters and the taste groups of users."""

    k: int | Auto = _limits(least=2)
    k_candidates: list[int] = _limits(least=2)
    min_count: int = _limits(least=0)
    max_iter: int = _limits(least=1)
    keep_ids: bool
    users: bool
    user_k: int | Auto = _limits(least=2)
    user_sample: int = _limits(least=2, most=1_000_000)
    seed: int = _limits(least=0)


@dataclass(frozen=True, kw_only=True)
class PopularConfig:
    """The lists of popular items."""

    n: int = _limits(least=1)
    prior_percentile: float = _limits(least=0.0, most=100.0)
    recent_days: float = _limits(above=0.0, most=36_500.0)
    previous_days: float = _limits(above=0.0, most=36_500.0)
    smoothing: float = _limits(above=0.0)


@dataclass(frozen=True, kw_only=True)
class SimilarConfig:
    """The nearest items of every item."""

    n: int = _limits(least=1)
    metric: str = _limits(choices=("cosine", "inner"))
    min_count: int = _limits(least=0)
    popularity_discount: float = _limits(least=0.0, most=2.0)
    seed: int = _limits(least=0)


@dataclass(frozen=True, kw_only=True)
class AudienceConfig:
    """The items and segments whose best users are asked for."""

    items: list[int] | list[str]
    segments: dict[str, Any]
    n: int = _limits(least=1)
    segment_score: str = _limits(choices=("mean", "max"))
    exclude_seen: bool


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """What a run has to fulfil before readers see it."""

    on_failed_gate: str = _limits(choices=("refuse", "warn"))
    metric: str = _limits(
        choices=("ndcg_at_10", "recall_at_20", "precision_at_10", "map_at_10", "mrr", "hit_rate_at_10")
    )
    min_metric: float = _limits(least=0.0)
    min_over_popularity: float = _limits(least=0.0)
    max_drop: float = _limits(least=0.0, most=1.0)
    min_users: float = _limits(least=0.0, most=1.0)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """The pairs of users and items that ``score`` answers, and what ``rerank`` shares with it."""

    input: str
    output: str
    user_column: str
    item_column: str
    model: str
    answer: str = _limits(choices=("score", "class"))
    neighbours: int = _limits(least=1, most=1000)


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """The candidates that ``rerank`` puts in order."""

    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What the summary at the end of a run shows."""

    users: int = _limits(least=0)
    clusters: int = _limits(least=0)
    similar: int = _limits(least=0)


@dataclass(frozen=True, kw_only=True)
class MaintainConfig:
    """What maintenance keeps; what it may remove follows from that."""

    keep_publications: int = _limits(least=1)
    keep_runs: int = _limits(least=0)
    keep_hours: float = _limits(least=0.0, most=168.0)
    log_days: int = _limits(least=1)
    small_files: int = _limits(least=2)
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class ForgetConfig:
    """Who is to be forgotten."""

    users: list[str]
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What the planner counts with instead of the tables and the session; 0 takes theirs."""

    users: int = _limits(least=0)
    events: int = _limits(least=0)
    positives: int = _limits(least=0)
    items: int = _limits(least=0)
    side_features: int = _limits(least=0)
    executors: int = _limits(least=0)
    cores: int = _limits(least=0)
