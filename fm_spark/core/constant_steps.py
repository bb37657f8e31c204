"""Local steps with a constant learning rate (design 5B): what a block learns, and the rule that combines blocks.

Averaging what the blocks learnt wastes most of it, adding it up overshoots. With d_p the displacement of a row in block
p and C_p = rate * curvature that the block saw on it, a block has gone the share 1 - exp(-C_p) of the way to where its
events pull the row, and all events together would go 1 - exp(-sum C_p). With phi(x) = x / (1 - exp(-x)),

    theta += sum_p phi(C_p) d_p / phi(sum_p C_p)

is the plain sum where steps are small (phi = 1) and the average weighted by curvature where rows are saturated
(phi(x) = x); one block alone is sequential SGD. For P equal blocks it is mean(d) (1 - exp(-C)) / (1 - exp(-C / P)).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fm_spark.core.combine import LARGEST_MOVE, LOSS_GRID, MOVE_GRID, MoveSum, RowSum
from fm_spark.core.fm_events import Events, Features, Floats, Rows
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.fm_rows import FmWorkspace, mixed_order, save_rows, take_back, touched_rows, visit_users
from fm_spark.core.pairwise import draw_negatives, sgd_pairs
from fm_spark.core.pointwise import LOGISTIC, SQUARED
from fm_spark.core.pointwise_steps import Steps, sgd, sgd_user_item

# 1e-6 for rate * curvature; 6e-8 for linear weights, which are one number a row
CURVATURE_GRID = 2.0**20
LINEAR_GRID = 2.0**24

POINTWISE = {"squared": SQUARED, "logistic": LOGISTIC}
LOSSES = (*POINTWISE, "bpr")


class EventSettings(NamedTuple):
    """What a block must know to train; everything resolved.

    Attributes:
        loss: one of LOSSES.
        negatives: sampled items an event, with ``bpr``.
        visit_size: events of one user in a row, where users have bags; without bags all events are mixed.
    """

    loss: str
    steps: Steps
    negatives: int = 1
    visit_size: int = 64


class ItemTable(NamedTuple):
    """What all blocks share about the items.

    Attributes:
        offset: row of item 0.
        side: static features of the items, n = n_items.
        cumulative: float64 [n_items], cumulative probabilities of negatives; used with ``bpr``.
    """

    offset: int
    side: Features
    cumulative: npt.NDArray[np.float64]


class FmMove(NamedTuple):
    """What a block learnt in a round, for the rows it touched and w0.

    Attributes:
        rows: int32 [r], ascending; w0_row: n_rows, the number that w0 goes by.
        moved: displacement of the rows' factors, float32 [r, k], and linear weights, float32 [r + 1], w0 last.
        stats: float32 [r + 1, 2], C_p = rate * curvature, of factors and of linear weights; w0 last.
        loss: summed loss; events: summed weight.
    """

    rows: Rows
    w0_row: int
    moved: FmParameters
    stats: Floats
    loss: float
    events: float


def run_events(
    parameters: FmParameters,
    work: FmWorkspace,
    events: Events,
    items: ItemTable,
    settings: EventSettings,
    rng: np.random.Generator,
) -> FmMove:
    """Trains on one block for one round, starting from ``parameters``, which are the same again afterwards.

    Args:
        rng: the block's own stream; the same stream and data give the same bits.
    """
    negative = np.empty((0, 0), np.int32)
    if settings.loss == "bpr":
        shape = (len(events.item), settings.negatives)
        negative = draw_negatives(items.cumulative, shape, items.offset, rng)
    rows = touched_rows(work, events, items.side, items.offset, negative.reshape(-1))
    old = save_rows(parameters, rows)
    loss = train_pass(parameters, work.stats, events, items, settings, negative, rng)
    moved = take_back(parameters, rows, old)
    at = np.append(rows, -1)
    stats = work.stats[at]
    work.stats[at] = 0.0
    return FmMove(rows, len(parameters.factors), moved, stats, loss, float(events.weight.sum(dtype=np.float64)))


def train_pass(
    parameters: FmParameters,
    stats: Floats,
    events: Events,
    items: ItemTable,
    settings: EventSettings,
    negative: Rows,
    rng: np.random.Generator,
) -> float:
    """One pass of SGD in place in a mixed order; returns the summed loss."""
    bags, steps = len(events.bag.row) > 0, settings.steps
    plain = not bags and len(events.context.row) == 0 and len(items.side.row) == 0 and events.user.min(initial=0) >= 0
    if settings.loss in POINTWISE and plain:
        order = mixed_order(len(events.item), rng)
        return float(sgd_user_item(parameters, events, POINTWISE[settings.loss], steps, order, stats))
    visits = visit_users(events, settings.visit_size if bags else 1, rng)
    if settings.loss == "bpr":
        return float(sgd_pairs(parameters, events, items.side, items.offset, negative, steps, visits, stats))
    return float(sgd(parameters, events, items.side, items.offset, POINTWISE[settings.loss], steps, visits, stats))


def phi(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x / (1 - exp(-x)) for x >= 0; 1 at 0."""
    positive = x > 0.0
    safe = np.where(positive, x, 1.0)
    return np.where(positive, safe / -np.expm1(-safe), 1.0)


def fm_on_grid(move: FmMove, seconds: float = 0.0) -> MoveSum:
    """One block's phi(C_p) d_p and C_p as integers (``RowSum.state`` is C_p, / CURVATURE_GRID).

    The bias part holds the linear weights (displacements / LINEAR_GRID); its row n_rows is w0.

    Args:
        seconds: what the block cost.

    Raises:
        FloatingPointError: a displacement is not finite or larger than LARGEST_MOVE, or the loss is not finite.
    """
    if not np.isfinite(move.loss):
        raise FloatingPointError(f"the loss of a block is {move.loss}")
    factors = _on_grid(move.rows, move.moved.factors, move.stats[:-1, 0], MOVE_GRID)
    at = np.append(move.rows, np.int32(move.w0_row))
    weights = _on_grid(at, move.moved.linear[:, None], move.stats[:, 1], LINEAR_GRID)
    return MoveSum(factors, weights, round(move.loss * LOSS_GRID), round(move.events * LOSS_GRID), seconds)


@njit(cache=True, nogil=True)
def _round_rows(moved, scale, out):  # type: ignore[no-untyped-def]
    for j in range(len(moved)):
        for f in range(moved.shape[1]):
            out[j, f] = np.int64(np.rint(np.float64(moved[j, f]) * scale[j]))


def _on_grid(rows: Rows, moved: Floats, curvature: Floats, grid: float) -> RowSum:
    learnt = curvature > 0.0
    learnt[~learnt] = np.any(moved[~learnt] != 0.0, axis=1)  # what is left: bags of users without events
    rows, moved, curvature = rows[learnt], moved[learnt], curvature[learnt]
    largest = np.abs(moved).max(initial=0.0)
    if not largest <= LARGEST_MOVE:
        raise FloatingPointError(f"a parameter moved by {largest:g} in one round of one block")
    exact = np.rint(curvature.astype(np.float64) * CURVATURE_GRID)
    scale = grid * phi(exact / CURVATURE_GRID)
    move = np.empty(moved.shape, np.int64)
    _round_rows(moved, scale, move)
    return RowSum(rows, move, exact.astype(np.int64), np.zeros(len(rows), np.int64), np.ones(len(rows), np.int32))


def combine_blocks(parameters: FmParameters, total: MoveSum) -> None:
    """Applies a round to ``parameters`` in place, by the rule of this module; w0 like every other row."""
    _apply(total.factors, parameters.factors, MOVE_GRID)
    _apply(total.bias, parameters.linear.reshape(-1, 1), LINEAR_GRID)


def _apply(total: RowSum, values: Floats, grid: float) -> None:
    scale = 1.0 / (grid * phi(total.state / CURVATURE_GRID))
    values[total.rows] += (total.move * scale[:, None]).astype(np.float32)
