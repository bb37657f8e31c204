"""How good predicted classes are: from a table of counts, so that any grouping of the events gives the same bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def confusion(truth: Ints, predicted: Ints, n_classes: int) -> Ints:
    """int64 [n_classes, n_classes], events by true and by predicted class; both int64 [n_events]."""
    cells = np.bincount(truth * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def class_metrics(table: Ints) -> dict[str, float]:
    """``accuracy`` and ``macro_f1``; NaN without events.

    accuracy: share of the events whose class was predicted. macro_f1: mean over the classes that are the truth or the
    prediction of some event of F1 = 2 right / (events of the class + predictions of it), each class counting once.

    Args:
        table: from :func:`confusion`, summed over any blocks.
    """
    right, events, said = np.diag(table).astype(np.float64), table.sum(axis=1), table.sum(axis=0)
    total = table.sum()
    if not total:
        return {"accuracy": np.nan, "macro_f1": np.nan}
    there = events + said > 0
    f1 = 2.0 * right[there] / (events + said)[there]
    return {"accuracy": float(right.sum() / total), "macro_f1": float(f1.mean())}
