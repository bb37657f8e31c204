"""Local steps (design 5B): a block makes minibatch AdaGrad steps of its own and reports how far it moved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fm_spark.core.gradient import Sampler, Settings, Workspace, add_gradient, check_loss, minibatches
from fm_spark.core.parameters import Doubles, Floats, Parameters
from fm_spark.core.plan import draw_targets, part_order, positives, visit_order
from fm_spark.core.sequences import Sequences
from fm_spark.core.touched import Rows


class Move(NamedTuple):
    """What a block learnt in a round, for the rows it touched only.

    Attributes:
        rows: int32 [r], ascending; factors: float32 [r, k] displacement; state: float64 [r] added AdaGrad state.
        items: int32 [b], ascending; bias: float32 [b]; bias_state: float64 [b].
        loss: summed loss; events: summed weight.
    """

    rows: Rows
    factors: Floats
    state: Doubles
    items: Rows
    bias: Floats
    bias_state: Doubles
    loss: float
    events: float


def run_block(
    parameters: Parameters,
    work: Workspace,
    sequences: Sequences,
    sampler: Sampler,
    settings: Settings,
    rng: np.random.Generator,
) -> Move:
    """Trains on one block for one round, starting from ``parameters``, which are the same again afterwards.

    Args:
        sequences: the block's users; every event is history, every liked one is a training event.
        rng: the block's own stream; the same stream and data give the same bits.

    Raises:
        FloatingPointError: the loss of a minibatch is not finite.
    """
    found = positives(sequences)
    if settings.part.of > 1:
        order = part_order(found, sequences.user, settings.part, rng)
    else:
        order = visit_order(found, settings.chunk_size, rng)
    target = draw_targets(sequences, found, settings.target_decay, rng)
    loss = events = 0.0
    bias = parameters.bias.reshape(-1, 1)
    rate, bias_rate = settings.learning_rate, settings.bias_rate * settings.learning_rate
    try:
        for batch in minibatches(found, order, target, sampler, settings, rng):
            batch_loss, weight, n, m = add_gradient(parameters, work, sequences, batch, settings, sampler.correction)
            check_loss(batch_loss)
            loss, events = loss + batch_loss, events + weight
            share = len(batch.position) / settings.batch_size
            work.factors.step(parameters.factors, parameters.factors_state, n, rate, share * settings.l2)
            work.bias.step(bias, parameters.bias_state, m, bias_rate, share * settings.l2_bias)
    finally:
        rows, moved, state = work.factors.take_back(parameters.factors, parameters.factors_state)
        items, moved_bias, bias_state = work.bias.take_back(bias, parameters.bias_state)
    return Move(rows, moved, state, items, moved_bias[:, 0], bias_state, loss, events)
