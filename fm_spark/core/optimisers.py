"""What the driver does with summed gradients: row-wise AdaGrad or row-wise Adam on the rows that were touched.

A row that no block touched keeps its values and its state. So Adam's means are over the row's own steps, and so is
the correction of their bias: the first step of a row has length ``rate``, however late it comes.
"""

from __future__ import annotations

import numpy as np

from fm_spark.core.combine import GRADIENT_GRID, RowSum
from fm_spark.core.parameters import INITIAL_STATE, Doubles, Floats

ADAGRAD, ADAM = "adagrad", "adam"
MEAN_DECAY, SQUARE_DECAY, LEAST_SPREAD = 0.9, 0.99, 1e-6


def row_state(optimizer: str, n_rows: int, width: int) -> Doubles:
    """The state of rows of ``width`` numbers before their first step.

    Returns:
        With ``adagrad`` float64 [n_rows], the sum of mean squared gradients; with ``adam`` float64
        [n_rows, width + 2]: m, v and the row's steps.
    """
    return np.zeros((n_rows, width + 2)) if optimizer == ADAM else np.full(n_rows, INITIAL_STATE)


def step_rows(optimizer: str, total: RowSum, values: Floats, state: Doubles, rate: float, l2: float) -> None:
    """Steps the touched rows of ``values`` (float32 [n, width]) and their ``state`` in place; L2 is added once."""
    step = adam_rows if optimizer == ADAM else adagrad_rows
    step(total, values, state, rate, l2)


def adagrad_rows(total: RowSum, values: Floats, state: Doubles, rate: float, l2: float) -> None:
    """One step of row-wise AdaGrad.

    Source:
        Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", with one accumulator a row.
    """
    rows = total.rows
    gradient = total.move / GRADIENT_GRID + l2 * values[rows]
    state[rows] += np.square(gradient).mean(axis=1)
    values[rows] -= (rate * gradient / np.sqrt(state[rows])[:, None]).astype(np.float32)


def adam_rows(total: RowSum, values: Floats, state: Doubles, rate: float, l2: float) -> None:
    """One step of Adam with one second moment a row: the mean over the row of its squared gradients.

    Source:
        Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    """
    rows = total.rows
    gradient = total.move / GRADIENT_GRID + l2 * values[rows]
    own = state[rows]
    own[:, :-2] = MEAN_DECAY * own[:, :-2] + (1.0 - MEAN_DECAY) * gradient
    own[:, -2] = SQUARE_DECAY * own[:, -2] + (1.0 - SQUARE_DECAY) * np.square(gradient).mean(axis=1)
    own[:, -1] += 1.0
    state[rows] = own
    steps = own[:, -1:]
    mean = own[:, :-2] / (1.0 - MEAN_DECAY**steps)
    spread = np.sqrt(own[:, -2:-1] / (1.0 - SQUARE_DECAY**steps))
    values[rows] -= (rate * mean / (spread + LEAST_SPREAD)).astype(np.float32)
