"""Slow and obviously right: the definitions, written as loops over explicit vectors."""

from __future__ import annotations

import numpy as np

from fm_spark.core.sequences import Sequences


def pairwise_fm(w0: float, w: np.ndarray, v: np.ndarray, x: np.ndarray) -> float:
    """Rendle 2010, eq. 1, term by term; w [n], v [n, k], x [n] dense."""
    y = w0 + float(w @ x)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            y += float(v[i] @ v[j]) * x[i] * x[j]
    return y


def history_bag(item: np.ndarray, liked: np.ndarray, decay: float, n_items: int) -> np.ndarray:
    """The decayed bag of earlier events (oldest first) as a dense vector [2 * n_items], not liked before liked."""
    bag = np.zeros(2 * n_items)
    if len(item) == 0:
        return bag
    values = decay ** np.arange(len(item))[::-1]
    values = values / np.linalg.norm(values)
    for i, flag, value in zip(item, liked, values, strict=True):
        bag[flag * n_items + i] += value
    return bag


def query(
    item: np.ndarray, liked: np.ndarray, decays: tuple[float, ...], factors: np.ndarray, n_items: int
) -> np.ndarray:
    """s_q = sum over decays of bag @ its table; factors [(2 n_decays + 1) * n_items, k]."""
    total = np.zeros(factors.shape[1])
    for d, decay in enumerate(decays):
        table = factors[2 * d * n_items : (2 * d + 2) * n_items].astype(np.float64)
        total += history_bag(item, liked, decay, n_items) @ table
    return total


def random_sequences(rng: np.random.Generator, n_users: int, n_items: int, longest: int) -> Sequences:
    """Users with 0 to ``longest`` random events."""
    length = rng.integers(0, longest + 1, n_users)
    ptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    n = int(ptr[-1])
    return Sequences(
        rng.permutation(10 * n_users)[:n_users].astype(np.int64),
        ptr,
        rng.integers(0, n_items, n).astype(np.int32),
        rng.integers(0, 2, n).astype(np.uint8),
        rng.uniform(0.5, 2.0, n).astype(np.float32),
        np.zeros(n, np.uint8),
    )
