"""What the report of a run says, as plain records; made by ``collect``, drawn by ``text``, ``plots`` and ``html``."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

RANKERS = ("fm", "popularity")


@dataclass(frozen=True)
class QualityCheck:
    """One row of ``data_quality``."""

    step: str
    check: str
    rows: int
    action: str
    detail: str


@dataclass(frozen=True)
class DataFacts:
    """Counts of the events; ``density`` is events / (users x items that have an event)."""

    users: int
    items: int
    catalogue: int
    events: int
    positives: int
    test_events: int
    first: datetime | None
    last: datetime | None
    quality: list[QualityCheck]

    @property
    def density(self) -> float:
        """Share of the user x item matrix that is known; 0 without events."""
        cells = self.users * self.items
        return self.events / cells if cells else 0.0


@dataclass(frozen=True)
class MetricFacts:
    """Test metrics: metric name -> ranker -> value, and what they are means over.

    Attributes:
        predictions: the same of predicted ratings or probabilities; empty for machines that only rank.
        predicted: events that were predicted; predicted_users: whose events they are.
    """

    values: dict[str, dict[str, float]]
    split: str
    users: int
    users_without_truth: int
    items: int
    predictions: dict[str, dict[str, float]] = field(default_factory=dict)
    predicted: int = 0
    predicted_users: int = 0


@dataclass(frozen=True)
class Curve:
    """One fit, epoch by epoch: training loss and the validation metrics (None: not measured)."""

    stage: str
    candidate: int
    epochs: list[int]
    loss: list[float]
    ndcg_at_10: list[float | None]
    recall_at_20: list[float | None]
    rmse: list[float | None] = field(default_factory=list)
    log_loss: list[float | None] = field(default_factory=list)

    @property
    def validated(self) -> bool:
        """Whether any epoch has a validation metric."""
        return self.measured is not None

    @property
    def measured(self) -> str | None:
        """The metric that was measured on the validation part: the first of them with a value."""
        names = ("ndcg_at_10", "rmse", "log_loss")
        return next((name for name in names if any(value is not None for value in getattr(self, name))), None)


@dataclass(frozen=True)
class TrainingFacts:
    """The models of the run by purpose, the settings in force, and every fit."""

    epochs: dict[str, int]
    k: int
    decays: list[float]
    settings: dict[str, str]
    validation: dict[str, float]
    curves: list[Curve]


@dataclass(frozen=True)
class LikedItem:
    """An item that a user liked, and when."""

    title: str
    time: datetime
    value: float


@dataclass(frozen=True)
class Recommended:
    """One place of a user's list."""

    rank: int
    title: str
    score: float


@dataclass(frozen=True)
class UserLists:
    """A user: how long the history is, the last liked items (newest first) and the first places of the list."""

    user_id: str
    events: int
    liked_events: int
    liked: list[LikedItem]
    top: list[Recommended]


@dataclass(frozen=True)
class ClusterFacts:
    """One cluster's profile; genres, decades and tags as (name, lift)."""

    cluster_id: int
    size: int
    label: str
    genres: list[tuple[str, float]]
    tags: list[tuple[str, float]]
    exemplars: list[str]
    decades: list[tuple[str, float]] = field(default_factory=list)
    cohesion: float | None = None


@dataclass(frozen=True)
class ClusterLine:
    """How the clusters go on from those of an earlier run: how many ids were kept, are new, are no more.

    ``stability`` is the adjusted Rand index over the items of both runs; None where no item is in both.
    """

    matched_run_id: str
    stability: float | None
    kept: int
    born: int
    dead: int


@dataclass(frozen=True)
class Neighbour:
    """One of the nearest items of an item."""

    title: str
    score: float


@dataclass(frozen=True)
class SimilarFacts:
    """A well-known item and its nearest ones, nearest first."""

    title: str
    neighbours: list[Neighbour]


@dataclass(frozen=True)
class TableFacts:
    """A table of the publication; ``rows`` counts the run's own rows where a table holds several runs."""

    name: str
    rows: int
    version: int
    path: str


@dataclass(frozen=True)
class ItemFacts:
    """The catalogue, one entry an item.

    Attributes:
        count: int64 [n_items], events.
        listed: int64 [n_items], lists of the run that hold the item.
        map_vectors: float32 [n_mapped, k], vectors of the mapped items (the best known ones).
        map_clusters: int64 [n_mapped], their clusters.
    """

    count: npt.NDArray[np.int64]
    listed: npt.NDArray[np.int64]
    map_vectors: npt.NDArray[np.float32]
    map_clusters: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RunFacts:
    """Everything that the report of a run says.

    Attributes:
        clusters: the shown ones; ``cluster_labels`` names all.
        similar: a few items with their nearest ones; genre_shares: how often such pairs have a genre in common, by who
            chose them.
    """

    run_id: str
    model_version: str
    published_at: datetime
    root: str
    data: DataFacts
    metrics: MetricFacts
    training: TrainingFacts
    users: list[UserLists]
    clusters: list[ClusterFacts]
    cluster_labels: dict[int, str]
    tables: list[TableFacts]
    items: ItemFacts
    seconds: dict[str, float]
    similar: list[SimilarFacts] = field(default_factory=list)
    genre_shares: dict[str, float] = field(default_factory=dict)
    cluster_line: ClusterLine | None = None
