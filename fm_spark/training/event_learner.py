"""The machine over single events as the round loop sees it: ``squared``, ``logistic`` and ``bpr``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyspark import RDD, SparkContext

from fm_spark.config_sections import TrainConfig
from fm_spark.core.combine import MoveSum
from fm_spark.core.constant_steps import EventSettings, ItemTable
from fm_spark.core.event_gradient import FmState, init_state
from fm_spark.core.event_predictions import SnapshotMean
from fm_spark.core.event_strategy import EventGradients, EventLocalSteps
from fm_spark.core.fm_events import Events, Fields
from fm_spark.core.fm_machine import FmMachine, assemble, fm_events, left_out, side_rows
from fm_spark.core.fm_parameters import FmParameters, init_fm
from fm_spark.core.fm_rows import FmWorkspace
from fm_spark.core.gradient import make_sampler
from fm_spark.training.blocks import Block
from fm_spark.training.context import ContextData
from fm_spark.training.event_data import EventData
from fm_spark.training.learner import Array
from fm_spark.training.recipes import EventRates
from fm_spark.training.resolve import RANKING_METRICS, init_std, validation_metric
from fm_spark.training.validation import prediction_metrics, validation_metrics

# the learnt share of likes is kept away from 0 and 1, whose log-odds are infinite
_LEAST_SHARE = 1e-6
# with bpr an event's bag leaves out one of so many parts of its user's history, the one that it belongs to
_FOLDS = 4


class EventLearnt(NamedTuple):
    """Parameters, the driver's optimiser state (with gradient sums) and the sums of the snapshots (with averaging)."""

    parameters: FmParameters
    state: FmState | None = None
    snapshots: SnapshotMean = SnapshotMean()

    def copy(self) -> EventLearnt:
        """The same numbers in arrays of their own; snapshots are never changed in place."""
        state = FmState._make(array.copy() for array in self.state) if self.state else None
        return EventLearnt(self.parameters.copy(), state, self.snapshots)

    def without_rows(self) -> EventLearnt:
        """The same with arrays of no rows."""
        return EventLearnt(FmParameters._make(array[:0] for array in self.parameters))

    def arrays(self) -> dict[str, Array]:
        """Every array by name; no copies."""
        arrays: dict[str, Array] = dict(self.parameters._asdict())
        if self.state is not None:
            arrays |= {f"state_{name}": array for name, array in self.state._asdict().items()}
        if self.snapshots.sums is not None:
            arrays |= {"snapshot_factors": self.snapshots.sums[0], "snapshot_linear": self.snapshots.sums[1]}
            arrays["snapshots"] = np.array([self.snapshots.count])
        return arrays

    def largest_norm(self) -> float:
        """The largest norm of a row and of a linear weight; w0, which has the size of the ratings, must be finite."""
        factors, linear = self.parameters
        squares = np.einsum("rk,rk->r", factors, factors)
        w0 = 0.0 if np.isfinite(linear[-1]) else np.nan
        return float(np.maximum(np.sqrt(squares.max(initial=0.0)), np.abs(linear[:-1]).max(initial=w0)))


def restore_events(arrays: Mapping[str, Array]) -> EventLearnt:
    """What :meth:`EventLearnt.arrays` came from.

    Raises:
        KeyError: an array is missing.
    """
    state, snapshots = None, SnapshotMean()
    if "state_factors" in arrays:
        state = FmState(*(arrays[f"state_{name}"] for name in FmState._fields))
    if "snapshots" in arrays:
        snapshots = SnapshotMean((arrays["snapshot_factors"], arrays["snapshot_linear"]), int(arrays["snapshots"][0]))
    return EventLearnt(FmParameters(*(arrays[name] for name in FmParameters._fields)), state, snapshots)


class _Shared(NamedTuple):
    """What a round's tasks need; broadcast."""

    parameters: FmParameters
    items: ItemTable


@dataclass(frozen=True)
class EventTask:
    """See :class:`~fm_spark.training.learner.Task`."""

    strategy: EventLocalSteps | EventGradients
    settings: EventSettings
    stage: str
    fields: Fields

    @property
    def dtype(self) -> type[np.signedinteger]:
        """Integer type of the sums."""
        return self.strategy.dtype

    def shape(self, shared: _Shared) -> tuple[int, int, int]:
        """Rows, factors, linear weights with w0."""
        factors, linear = shared.parameters
        return (*factors.shape, len(linear))

    def workspace(self, shared: _Shared) -> FmWorkspace:
        """Scratch arrays."""
        return FmWorkspace(len(shared.parameters.factors))

    def block(self, shared: _Shared, work: FmWorkspace, block: Block, stream: tuple[int, int, int]) -> MoveSum:
        """Learns from the events that the stage may see."""
        events = events_of(block, self.stage, self.settings.loss, self.fields)
        return self.strategy.block(shared.parameters, work, events, shared.items, self.settings, stream)


def events_of(block: Block, stage: str, loss: str, fields: Fields) -> Events:
    """The training events of a block: with ``bpr`` the liked ones. Bags hold what the stage may see."""
    seen = block.view(stage)
    rows = block.row if block.row is not None else np.empty(0, np.int32)
    if loss == "bpr":
        asked, known = left_out(seen, _FOLDS)
        return fm_events(asked, known, fields, np.tile(rows, _FOLDS), asked.liked.astype(np.float32))
    label = seen.liked.astype(np.float32) if loss == "logistic" or seen.value is None else seen.value
    return fm_events(seen, seen, fields, rows, label)


class EventLearner:
    """See :class:`~fm_spark.training.learner.Learner`.

    Args:
        liked: int64 [n_items], positive events of each item that the stage may see: what negatives are drawn by.
        share: share of the users that ranking validation ranks; predictions are validated on all.
        context: fields of time and of users' columns.
    """

    def __init__(
        self,
        config: TrainConfig,
        rates: EventRates,
        stage: str,
        data: EventData,
        liked: npt.NDArray[np.int64],
        share: float = 1.0,
        context: ContextData | None = None,
    ) -> None:
        self._config, self._rates, self._stage = config, rates, stage
        self._data, self._share, self._context = data, share, context or ContextData()
        self._strategy = EventLocalSteps() if config.local_steps == "on" else EventGradients(config.optimizer)
        cumulative = make_sampler(liked, config.negatives_power).cumulative
        self._items = ItemTable(data.fields.item_offset, side_rows(data.side, data.fields), cumulative)

    def start(self) -> EventLearnt:
        """Random factors, zeros for users, items and context rows without events, w0 that predicts the mean."""
        fields, config = self._data.fields, self._config
        parameters = init_fm(fields, config.k, init_std(config), self._first_w0(), config.seed)
        # without training events a row's side features, or nothing, must speak for it
        parameters.factors[: fields.n_users][self._data.events_of_users(self._stage) == 0] = 0.0
        parameters.factors[fields.item_offset : fields.side_offset][self._data.seen[self._stage] == 0] = 0.0
        if fields.n_context:
            counts = self._context.liked if self._rates.loss == "bpr" else self._context.seen
            parameters.factors[fields.context_offset : fields.bag_offset][counts[self._stage] == 0] = 0.0
        state = None if config.local_steps == "on" else init_state(fields.n_rows, config.k, config.optimizer)
        return EventLearnt(parameters, state)

    def task(self, settings: EventRates) -> EventTask:
        """The work of a round."""
        return EventTask(self._strategy, settings.resolved(), self._stage, self._data.fields)

    def shared(self, learnt: EventLearnt) -> tuple[object, int]:
        """The parameters and what is fixed about the items."""
        return _Shared(learnt.parameters, self._items), learnt.parameters.nbytes()

    def apply(self, learnt: EventLearnt, total: MoveSum, settings: EventRates, n_blocks: int) -> None:
        """Moves the parameters."""
        self._strategy.apply(learnt.parameters, learnt.state, total, settings.resolved())

    def end_epoch(self, learnt: EventLearnt, settings: EventRates, epoch: int) -> EventLearnt:
        """Adds the epoch's snapshot from ``train.average_from`` on."""
        if not settings.average_from or epoch + 1 < settings.average_from:
            return learnt
        snapshots = SnapshotMean(learnt.snapshots.sums, learnt.snapshots.count)
        snapshots.add(learnt.parameters)
        return learnt._replace(snapshots=snapshots)

    def machine(self, learnt: EventLearnt) -> EventLearnt:
        """The mean of the snapshots, or the parameters as they are when there are none."""
        return EventLearnt(learnt.snapshots.take() if learnt.snapshots.count else learnt.parameters)

    def metrics(self, sc: SparkContext, blocks: list[RDD[Block]], learnt: EventLearnt) -> dict[str, float] | None:
        """Ranking metrics, or the errors of predictions, as ``train.validation_metric`` asks."""
        machine = self._machine(self.machine(learnt).parameters)
        if validation_metric(self._config) in RANKING_METRICS:
            return validation_metrics(sc, blocks, machine, self._share)
        return prediction_metrics(sc, blocks, machine)

    def _machine(self, parameters: FmParameters) -> FmMachine:
        """For blocks, whose users go by their rows."""
        data = self._data
        places = np.arange(data.fields.n_users, dtype=np.int64)
        totals = data.totals[self._stage]
        limits = (totals.least, totals.greatest)
        context = self._context.fields
        return assemble(self._rates.loss, parameters, data.fields, data.side, places, limits, context)

    def _first_w0(self) -> float:
        totals = self._data.totals[self._stage]
        if self._rates.loss == "squared":
            return totals.mean_value
        if self._rates.loss == "logistic":
            share = min(max(totals.share_liked, _LEAST_SHARE), 1.0 - _LEAST_SHARE)
            return float(np.log(share / (1.0 - share)))
        return 0.0
