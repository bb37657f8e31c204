"""The machine over histories as the round loop sees it: sampled softmax over decayed bags (design of the default)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pyspark import RDD, SparkContext
from scipy import sparse

from fm_spark.config_sections import TrainConfig
from fm_spark.core.combine import MoveSum
from fm_spark.core.context import NO_CONTEXT, ContextFields
from fm_spark.core.gradient import Sampler, Settings, Workspace, make_sampler
from fm_spark.core.machine import Machine
from fm_spark.core.optimisers import ADAM, row_state
from fm_spark.core.parameters import Parameters, init_parameters
from fm_spark.core.side import SideFeatures, no_progress, share_move
from fm_spark.core.strategy import LocalSteps, Strategy, Synchronous
from fm_spark.training.blocks import Block
from fm_spark.training.context import ContextData
from fm_spark.training.learner import Array
from fm_spark.training.resolve import init_std
from fm_spark.training.validation import validation_metrics


class RankerLearnt(NamedTuple):
    """Parameters with their optimiser's state, and side features of the items (None without any)."""

    parameters: Parameters
    side: SideFeatures | None

    def copy(self) -> RankerLearnt:
        """The same numbers in arrays of their own."""
        side = self.side
        if side is not None:
            side = side._replace(factors=side.factors.copy(), bias=side.bias.copy())
        return RankerLearnt(Parameters._make(array.copy() for array in self.parameters), side)

    def without_rows(self) -> RankerLearnt:
        """The same with arrays of no rows."""
        return RankerLearnt(Parameters._make(array[:0] for array in self.parameters), None)

    def arrays(self) -> dict[str, Array]:
        """Every array by name; no copies."""
        arrays: dict[str, Array] = dict(self.parameters._asdict())
        if self.side is not None:
            arrays |= {"side_factors": self.side.factors, "side_bias": self.side.bias}
        return arrays

    def largest_norm(self) -> float:
        """The largest norm of a row and of a bias; NaN or infinite when a number is."""
        factors, bias = self.parameters.factors, self.parameters.bias
        squares = np.einsum("rk,rk->r", factors, factors)
        return float(np.maximum(np.sqrt(squares.max(initial=0.0)), np.abs(bias).max(initial=0.0)))


def restore_ranker(arrays: Mapping[str, Array], x: sparse.csr_matrix | None) -> RankerLearnt:
    """What :meth:`RankerLearnt.arrays` came from.

    Args:
        x: float32 CSR [n_items, n_side], which item has which side feature; it follows from the items table.

    Raises:
        KeyError: an array is missing.
    """
    parameters = Parameters(*(arrays[field] for field in Parameters._fields))
    if x is None or "side_factors" not in arrays:
        return RankerLearnt(parameters, None)
    return RankerLearnt(parameters, SideFeatures(x, arrays["side_factors"], arrays["side_bias"]))


@dataclass(frozen=True)
class RankerTask:
    """See :class:`~fm_spark.training.learner.Task`; what is shared are the parameters and the sampler."""

    strategy: Strategy
    settings: Settings
    stage: str

    @property
    def dtype(self) -> type[np.signedinteger]:
        """Integer type of the sums."""
        return self.strategy.dtype

    def shape(self, shared: tuple[Parameters, Sampler]) -> tuple[int, int, int]:
        """Factor rows, factors, items."""
        parameters = shared[0]
        return (*parameters.factors.shape, parameters.n_items)

    def workspace(self, shared: tuple[Parameters, Sampler]) -> Workspace:
        """Scratch arrays."""
        parameters = shared[0]
        rows, k = parameters.factors.shape
        return Workspace((rows, k), parameters.n_items)

    def block(
        self, shared: tuple[Parameters, Sampler], work: Workspace, block: Block, stream: tuple[int, int, int]
    ) -> MoveSum:
        """Learns from the liked events that the stage may see."""
        parameters, sampler = shared
        return self.strategy.block(parameters, work, block.view(self.stage), sampler, self.settings, stream)


class RankerLearner:
    """See :class:`~fm_spark.training.learner.Learner`.

    Args:
        count: int64 [n_items], positive events of each item that the stage may see.
        side: float32 CSR [n_items, n_side]; None without any.
        share: share of the users that validation ranks.
        context: the query's fields beside the history.
    """

    def __init__(
        self,
        config: TrainConfig,
        decays: tuple[float, ...],
        stage: str,
        count: Array,
        side: sparse.csr_matrix | None = None,
        share: float = 1.0,
        context: ContextData | None = None,
    ) -> None:
        self._config, self._decays, self._stage = config, decays, stage
        self._context = context or ContextData()
        self._count, self._side, self._share = count, side, share
        self._sampler = make_sampler(count, config.negatives_power)
        local = LocalSteps(config.trust_region, self._context.fields.sizes)
        self._strategy: Strategy = local if config.local_steps == "on" else Synchronous(config.optimizer)

    def start(self) -> RankerLearnt:
        """Random factors, side features that have learnt nothing."""
        config = self._config
        context = self._context.liked.get(self._stage)
        parameters = init_parameters(len(self._decays), self._count, config.k, init_std(config), config.seed, context)
        if config.optimizer == ADAM:
            rows, items = (row_state(ADAM, len(a), w) for a, w in ((parameters.factors, config.k), (self._count, 1)))
            parameters = parameters._replace(factors_state=rows, bias_state=items)
        return RankerLearnt(parameters, no_progress(self._side, config.k) if self._side is not None else None)

    def task(self, settings: Settings) -> RankerTask:
        """The work of a round."""
        return RankerTask(self._strategy, settings, self._stage)

    def shared(self, learnt: RankerLearnt) -> tuple[object, int]:
        """The parameters and the sampler; Adam's means stay on the driver."""
        parameters = learnt.parameters
        if self._config.optimizer == ADAM:
            parameters = parameters._replace(factors_state=np.empty(0), bias_state=np.empty(0))
        return (parameters, self._sampler), parameters.nbytes()

    def apply(self, learnt: RankerLearnt, total: MoveSum, settings: Settings, n_blocks: int) -> None:
        """Moves the parameters and shares the move with the side features."""
        parameters, side = learnt
        before, before_bias = parameters.item_factors.copy(), parameters.bias.copy()
        self._strategy.apply(parameters, total, settings, n_blocks)
        if side is not None:
            share_move(side, parameters, before, before_bias)

    def end_epoch(self, learnt: RankerLearnt, settings: Settings, epoch: int) -> RankerLearnt:
        """Nothing to do."""
        return learnt

    def machine(self, learnt: RankerLearnt) -> RankerLearnt:
        """What is learnt, as it is."""
        return learnt

    def metrics(self, sc: SparkContext, blocks: list[RDD[Block]], learnt: RankerLearnt) -> dict[str, float] | None:
        """Ranking metrics."""
        machine = machine_of(learnt.parameters, self._decays, self._context.fields)
        return validation_metrics(sc, blocks, machine, self._share)


def machine_of(parameters: Parameters, decays: tuple[float, ...], context: ContextFields = NO_CONTEXT) -> Machine:
    """The ranker that the parameters are; views, no copies."""
    n = len(decays)
    of_context = parameters.context(n) if context.n_rows else None
    items, bias = parameters.item_factors, parameters.bias
    return Machine(np.array(decays), parameters.history(n), items, bias, context, of_context)
