"""``train.ensemble``: machines from different seeds trained side by side in the same rounds, one machine afterwards.

Member m trains with the seed ``train.seed`` + m and has the bits of a machine that is trained with that seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark import RDD, SparkContext

from fm_spark.core.combine import MoveSum
from fm_spark.core.ensemble import mean_factors, mean_weights, stacked, unstacked
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.parameters import Parameters
from fm_spark.training.blocks import Block
from fm_spark.training.event_learner import EventLearnt
from fm_spark.training.learner import Array, Learner, Learnt, Task, Workspace
from fm_spark.training.ranker import RankerLearnt


@dataclass(frozen=True)
class EnsembleLearnt:
    """What the members have learnt; see :class:`~fm_spark.training.learner.Learnt`."""

    members: tuple[Any, ...]

    def copy(self) -> EnsembleLearnt:
        """The same numbers in arrays of their own."""
        return EnsembleLearnt(tuple(member.copy() for member in self.members))

    def without_rows(self) -> EnsembleLearnt:
        """The same with arrays of no rows."""
        return EnsembleLearnt(tuple(member.without_rows() for member in self.members))

    def arrays(self) -> dict[str, Array]:
        """Every array by name, for example ``member1_factors``; no copies."""
        return {
            f"member{m}_{name}": array
            for m, member in enumerate(self.members)
            for name, array in member.arrays().items()
        }

    def largest_norm(self) -> float:
        """The largest norm of any member; NaN or infinite when a number is."""
        return float(np.max([member.largest_norm() for member in self.members]))


def restore_ensemble(arrays: Mapping[str, Array], restore: Callable[[Mapping[str, Array]], Learnt]) -> Learnt:
    """What :meth:`EnsembleLearnt.arrays` came from; arrays of one machine alone are restored as that machine.

    Args:
        restore: of one member.

    Raises:
        KeyError: an array is missing.
    """
    members: list[Learnt] = []
    while own := {name.partition("_")[2]: a for name, a in arrays.items() if name.startswith(f"member{len(members)}_")}:
        members.append(restore(own))
    return EnsembleLearnt(tuple(members)) if members else restore(arrays)


def one_machine(members: Sequence[Learnt]) -> Learnt:
    """The machine of M k factors whose score is the mean of the members' scores; it has no optimiser state."""
    events = [member for member in members if isinstance(member, EventLearnt)]
    if events:
        factors = mean_factors([member.parameters.factors for member in events])
        return EventLearnt(FmParameters(factors, mean_weights([member.parameters.linear for member in events])))
    rankers = [member for member in members if isinstance(member, RankerLearnt)]
    first = rankers[0]
    parameters = Parameters(
        mean_factors([member.parameters.factors for member in rankers]),
        mean_weights([member.parameters.bias for member in rankers]),
        np.zeros(len(first.parameters.factors_state)),
        np.zeros(len(first.parameters.bias_state)),
    )
    sides = [member.side for member in rankers if member.side is not None]
    if not sides:
        return RankerLearnt(parameters, None)
    factors = mean_factors([side.factors for side in sides])
    side = sides[0]._replace(factors=factors, bias=mean_weights([side.bias for side in sides]))
    return RankerLearnt(parameters, side)


class EnsembleWorkspace:
    """Scratch arrays of one member at a time, which the members of a task share."""

    def __init__(self) -> None:
        self._made: tuple[object, Any] | None = None

    def of(self, task: Task, shared: object) -> Any:
        """The scratch arrays for a member's task."""
        key = (type(task), task.shape(shared))
        if self._made is None or self._made[0] != key:
            self._made = (key, task.workspace(shared))
        return self._made[1]

    def clear(self) -> None:
        """Forgets what a block left that stopped half-way."""
        if self._made is not None:
            work: Workspace = self._made[1]
            work.clear()


@dataclass(frozen=True)
class EnsembleTask:
    """See :class:`~fm_spark.training.learner.Task`; what is shared is a tuple of what the members share."""

    tasks: tuple[Task, ...]

    @property
    def dtype(self) -> type[np.signedinteger]:
        """Integer type of the sums."""
        return self.tasks[0].dtype

    def shape(self, shared: tuple[Any, ...]) -> tuple[int, int, int]:
        """Factor rows of all members, factors of one, rows of biases of all."""
        rows, k, biases = self.tasks[0].shape(shared[0])
        return rows * len(self.tasks), k, biases * len(self.tasks)

    def workspace(self, shared: tuple[Any, ...]) -> EnsembleWorkspace:
        """Scratch arrays, made with the first block."""
        return EnsembleWorkspace()

    def block(
        self, shared: tuple[Any, ...], work: EnsembleWorkspace, block: Block, stream: tuple[int, int, int]
    ) -> MoveSum:
        """Lets every member learn from the block, each with the stream of its own seed."""
        seed, epoch, number = stream
        sums = [
            task.block(value, work.of(task, value), block, (seed + m, epoch, number))
            for m, (task, value) in enumerate(zip(self.tasks, shared, strict=True))
        ]
        rows, _, biases = self.tasks[0].shape(shared[0])
        return stacked(sums, rows, biases)


class EnsembleLearner:
    """See :class:`~fm_spark.training.learner.Learner`.

    Args:
        members: learners of one kind that differ in their seeds alone: ``train.seed``, ``train.seed`` + 1, ...
    """

    def __init__(self, members: Sequence[Learner]) -> None:
        self._members = tuple(members)

    def start(self) -> EnsembleLearnt:
        """Every member before its first round."""
        return EnsembleLearnt(tuple(member.start() for member in self._members))

    def task(self, settings: Any) -> EnsembleTask:
        """The work of a round."""
        return EnsembleTask(tuple(member.task(settings) for member in self._members))

    def shared(self, learnt: EnsembleLearnt) -> tuple[object, int]:
        """What the members broadcast, and its bytes."""
        values = [member.shared(one) for member, one in zip(self._members, learnt.members, strict=True)]
        return tuple(value for value, _ in values), sum(size for _, size in values)

    def apply(self, learnt: EnsembleLearnt, total: MoveSum, settings: Any, n_blocks: int) -> None:
        """Moves every member by its own rows."""
        first = self._members[0]
        rows, _, biases = first.task(settings).shape(first.shared(learnt.members[0])[0])
        parts = unstacked(total, len(self._members), rows, biases)
        for member, one, part in zip(self._members, learnt.members, parts, strict=True):
            member.apply(one, part, settings, n_blocks)

    def end_epoch(self, learnt: EnsembleLearnt, settings: Any, epoch: int) -> EnsembleLearnt:
        """What every member has learnt after the epoch."""
        pairs = zip(self._members, learnt.members, strict=True)
        return EnsembleLearnt(tuple(member.end_epoch(one, settings, epoch) for member, one in pairs))

    def machine(self, learnt: EnsembleLearnt) -> Learnt:
        """The one machine that the members' machines are together."""
        pairs = zip(self._members, learnt.members, strict=True)
        return one_machine([member.machine(one) for member, one in pairs])

    def metrics(self, sc: SparkContext, blocks: list[RDD[Block]], learnt: EnsembleLearnt) -> dict[str, float] | None:
        """Metrics of the one machine."""
        return self._members[0].metrics(sc, blocks, self.machine(learnt))
