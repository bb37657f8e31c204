from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fm_spark.core.class_metrics import class_metrics, confusion
from fm_spark.core.knn_classes import class_votes, unit_rows
from fm_spark.core.sequences import Sequences

CLASSES = np.array([1.0, 2.5, 4.0])


def sequences(items: list[list[int]], values: list[list[float]]) -> Sequences:
    item = np.array([i for own in items for i in own], np.int32)
    n = len(item)
    ptr = np.concatenate([[0], np.cumsum([len(own) for own in items])]).astype(np.int64)
    value = np.array([v for own in values for v in own], np.float32)
    return Sequences(
        np.arange(len(items)), ptr, item, np.ones(n, np.uint8), np.ones(n, np.float32), np.zeros(n, np.uint8), value
    )


def slow_vote(
    factors: npt.NDArray[np.float32], rated: list[int], values: list[float], item: int, k: int
) -> tuple[float | None, int]:
    """One pair: sort the rated items by cosine, count."""
    cosine = {
        j: float(factors[item] @ factors[j] / np.linalg.norm(factors[item]) / np.linalg.norm(factors[j]))
        for j in rated
        if j != item
    }
    nearest = sorted(cosine, key=lambda j: (-cosine[j], j))[:k]
    votes = {c: sum(1 + cosine[j] for j in nearest if values[rated.index(j)] == c) for c in CLASSES}
    return (max(CLASSES, key=lambda c: (votes[c], -c)) if nearest else None), len(nearest)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_votes_equal_those_of_sorting_every_cosine(k: int) -> None:
    rng = np.random.default_rng(k)
    factors = rng.standard_normal((40, 5)).astype(np.float32)
    rated = [rng.permutation(40)[:n].tolist() for n in (0, 1, 7, 30)]
    values = [rng.choice(CLASSES, len(own)).tolist() for own in rated]
    asked = [rng.permutation(40)[:n].tolist() for n in (3, 4, 0, 12)]
    asked[1].append(rated[1][0])  # its only neighbour would be itself
    found = class_votes(
        unit_rows(factors), sequences(rated, values), CLASSES, sequences(asked, [[0.0] * len(a) for a in asked]), k
    )
    pairs = [(u, item) for u, own in enumerate(asked) for item in own]
    wanted = [slow_vote(factors, rated[u], values[u], item, k) for u, item in pairs]
    assert [None if label < 0 else CLASSES[label] for label in found.label] == [label for label, _ in wanted]
    assert found.voters.tolist() == [voters for _, voters in wanted]


def test_equally_near_items_vote_by_index_and_equal_votes_go_to_the_smaller_class() -> None:
    factors = np.ones((4, 2), np.float32)
    found = class_votes(
        unit_rows(factors), sequences([[3, 1, 2]], [[4.0, 2.5, 1.0]]), CLASSES, sequences([[0]], [[0.0]]), 2
    )
    assert CLASSES[found.label[0]] == 1.0  # items 1 and 2 vote once each


def test_class_metrics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    truth, said = rng.integers(0, 4, 200), rng.integers(1, 5, 200)
    table = confusion(truth[:90], said[:90], 6) + confusion(truth[90:], said[90:], 6)
    found = class_metrics(table)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
    assert all(np.isnan(value) for value in class_metrics(np.zeros((3, 3), np.int64)).values())
