"""Steps of the driver: row-wise Adam against a plain reference, rows without gradient, losses that fall."""

import numpy as np
import pytest

from fm_spark.config import load_config
from fm_spark.core.combine import GRADIENT_GRID, RowSum
from fm_spark.core.event_gradient import init_state
from fm_spark.core.event_strategy import EventGradients
from fm_spark.core.optimisers import ADAM, adam_rows, row_state
from fm_spark.core.strategy import Synchronous
from fm_spark.errors import ConfigError
from fm_spark.training.recipes import candidates
from fm_spark.training.resolve import DataSize
from tests.unit.test_constant_steps import make as make_events
from tests.unit.test_constant_steps import options
from tests.unit.test_rounds_core import N_ITEMS, OPTIONS, K, make

RATE, L2 = 0.03, 0.1


def gradients(seed: int, rows: np.ndarray, width: int) -> RowSum:
    move = np.random.default_rng(seed).integers(-(10**6), 10**6, (len(rows), width))
    nothing = np.zeros(len(rows), np.int64)
    return RowSum(rows.astype(np.int32), move, nothing, nothing, np.ones(len(rows), np.int32))


def slow_adam(values: np.ndarray, steps: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Adam as it stands in the paper, row by row and number by number; ``steps``: (row, summed gradient)."""
    values = values.astype(np.float64)
    m, v, t = np.zeros_like(values), np.zeros(len(values)), np.zeros(len(values), int)
    for row, summed in steps:
        t[row] += 1
        square = 0.0
        for f in range(values.shape[1]):
            g = summed[f] + L2 * values[row, f]
            m[row, f] = 0.9 * m[row, f] + 0.1 * g
            square += g * g / values.shape[1]
        v[row] = 0.99 * v[row] + 0.01 * square
        for f in range(values.shape[1]):
            spread = np.sqrt(v[row] / (1 - 0.99 ** t[row]))
            values[row, f] -= RATE * m[row, f] / (1 - 0.9 ** t[row]) / (spread + 1e-6)
    return values


@pytest.mark.parametrize("width", [1, 4])
def test_steps_are_those_of_the_paper_on_touched_rows_only(width: int) -> None:
    values = np.random.default_rng(0).normal(size=(6, width)).astype(np.float32)
    state, before = row_state(ADAM, 6, width), values.copy()
    touched = [np.array([0, 2, 5]), np.array([2]), np.array([1, 2, 5])]
    steps = []
    for seed, rows in enumerate(touched):
        total = gradients(seed, rows, width)
        adam_rows(total, values, state, RATE, L2)
        steps += list(zip(rows, total.move / GRADIENT_GRID, strict=True))
    np.testing.assert_allclose(values, slow_adam(before, steps), atol=1e-6)
    assert np.array_equal(values[3:5], before[3:5])
    assert not state[3:5].any()
    assert state[:, -1].tolist() == [1, 1, 3, 0, 0, 2]


def test_the_first_step_of_a_row_has_the_length_of_the_rate() -> None:
    values, state = np.zeros((2, 1), np.float32), row_state(ADAM, 2, 1)
    for seed in range(5):
        adam_rows(gradients(seed, np.array([0]), 1), values, state, RATE, 0.0)
    late = gradients(9, np.array([1]), 1)
    adam_rows(late, values, state, RATE, 0.0)
    np.testing.assert_allclose(values[1], -RATE * np.sign(late.move[0]), rtol=1e-5)


def test_softmax_is_learnt() -> None:
    block, parameters, sampler, work = make(2, users=60)
    parameters = parameters._replace(
        factors_state=row_state(ADAM, len(parameters.factors), K), bias_state=row_state(ADAM, N_ITEMS, 1)
    )
    strategy, losses = Synchronous("adam"), []
    for epoch in range(30):
        total = strategy.block(parameters, work, block, sampler, OPTIONS, (1, epoch, 0))
        strategy.apply(parameters, total, OPTIONS._replace(learning_rate=RATE), 1)
        losses.append(total.loss / total.events)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05


@pytest.mark.parametrize("loss", ["squared", "logistic", "bpr"])
def test_single_events_are_learnt(loss: str) -> None:
    events, items, parameters, work = make_events(2, 60)
    state = init_state(len(parameters.factors), parameters.factors.shape[1], ADAM)
    strategy, losses = EventGradients("adam"), []
    for epoch in range(30):
        total = strategy.block(parameters, work, events, items, options(loss), (1, epoch, 0))
        strategy.apply(parameters, state, total, options(loss))
        losses.append(total.loss / total.events)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert state.linear[-1, -1] == (0 if loss == "bpr" else 30)


def test_adam_is_for_steps_of_the_driver() -> None:
    with pytest.raises(ConfigError, match=r"train.optimizer = 'adam' is a step of the driver.*local_steps = \"off\""):
        load_config(overrides=["train.optimizer=adam"])
    config = load_config(overrides=["train.optimizer=adam", "train.local_steps=off"]).train
    recipe = candidates(config, DataSize(600, 80_000, 40_000, 6_000))[0]
    assert (recipe.settings.learning_rate, recipe.learning_rate_decay) == (0.03, 0.7)
