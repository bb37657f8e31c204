"""Synchronous minibatches (design 5A): every block returns its sum of gradients, the driver makes the step.

Each user draws his targets, chunks and negatives from a stream of his own, so that the sum of gradients does not
depend on how users are dealt to blocks. It is slower than local steps and the reference that they are tested against.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fm_spark.core.combine import GRADIENT_GRID, LOSS_GRID, MoveSum, RowSum
from fm_spark.core.gradient import Sampler, Settings, Workspace, add_gradient, check_loss, minibatches
from fm_spark.core.optimisers import ADAGRAD, step_rows
from fm_spark.core.parameters import Parameters
from fm_spark.core.plan import draw_targets, positives, visit_order
from fm_spark.core.sequences import Sequences, one_user


def gradient_sum(
    parameters: Parameters,
    work: Workspace,
    sequences: Sequences,
    sampler: Sampler,
    settings: Settings,
    key: tuple[int, int],
) -> MoveSum:
    """The summed gradient of a block's users at ``parameters``, on the integer grid.

    Each user's gradient is rounded on its own, so the sum over any dealing of the users has the same bits.

    Args:
        key: 64-bit seed and epoch; with the user they make the stream of random numbers.

    Raises:
        FloatingPointError: the loss of a minibatch is not finite.
    """
    rows, k = parameters.factors.shape
    total = np.zeros((rows, k), np.int64)
    total_bias = np.zeros((parameters.n_items, 1), np.int64)
    touched, touched_items = np.zeros(rows, np.int32), np.zeros(parameters.n_items, np.int32)
    loss = events = 0
    for u in range(sequences.n_users):
        user = one_user(sequences, u)
        found = positives(user)
        rng = np.random.Generator(np.random.Philox(key=_stream(key, int(user.user[0]))))
        order = visit_order(found, settings.chunk_size, rng)
        target = draw_targets(user, found, settings.target_decay, rng)
        n = m = 0
        for batch in minibatches(found, order, target, sampler, settings, rng):
            batch_loss, weight, n, m = add_gradient(parameters, work, user, batch, settings, sampler.correction, (n, m))
            check_loss(batch_loss)
            loss += round(batch_loss * LOSS_GRID)
            events += round(weight * LOSS_GRID)
        at, items = work.factors.rows[:n], work.bias.rows[:m]
        total[at] += np.rint(work.factors.grad[:n].astype(np.float64) * GRADIENT_GRID).astype(np.int64)
        total_bias[items] += np.rint(work.bias.grad[:m].astype(np.float64) * GRADIENT_GRID).astype(np.int64)
        touched[at] += 1
        touched_items[items] += 1
        work.factors.place[at] = 0
        work.bias.place[items] = 0
    return MoveSum(_touched_rows(total, touched), _touched_rows(total_bias, touched_items), loss, events, 0.0)


def _stream(key: tuple[int, int], user: int) -> npt.NDArray[np.uint64]:
    mask = (1 << 64) - 1
    return np.array([key[0] & mask, (user ^ (key[1] << 48)) & mask], dtype=np.uint64)


def _touched_rows(total: npt.NDArray[np.int64], touched: npt.NDArray[np.int32]) -> RowSum:
    rows = np.flatnonzero(touched).astype(np.int32)
    nothing = np.zeros(len(rows), np.int64)
    return RowSum(rows, total[rows], nothing, nothing, touched[rows])


def gradient_step(parameters: Parameters, total: MoveSum, settings: Settings, optimizer: str = ADAGRAD) -> None:
    """One step of the driver in place with the summed gradient (:mod:`fm_spark.core.optimisers`)."""
    rate, bias = settings.learning_rate, parameters.bias.reshape(-1, 1)
    step_rows(optimizer, total.factors, parameters.factors, parameters.factors_state, rate, settings.l2)
    step_rows(optimizer, total.bias, bias, parameters.bias_state, settings.bias_rate * rate, settings.l2_bias)
