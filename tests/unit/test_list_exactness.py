"""Lists of machines with genres, biases and context equal sorting the model's score, summed feature by feature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from fm_spark.core.context import Context, ContextFields
from fm_spark.core.fm_events import Features, Fields
from fm_spark.core.fm_machine import assemble
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.item_scores import prepare_items, user_items
from fm_spark.core.machine import Machine
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import Sequences
from fm_spark.core.side import SideFeatures, compose
from fm_spark.core.topk import top_n

N_ITEMS, N_USERS, N_GENRES, K = 60, 12, 5, 6
GREEDY = 3  # has an event with every item
DECAYS = (0.5, 0.9)
CONTEXT = ContextFields(("hour_of_week",), ("age",), (("Monday 00", "Monday 01"), ("old", "young")))
Vectors = list[tuple[npt.NDArray[np.float32], float]]


class Made(NamedTuple):
    """A machine with what its score is made of.

    Attributes:
        query: of each user, the vectors and values of his features.
        item: of each item, the same; linear: its linear weights times their values, summed.
    """

    machine: Ranker
    query: list[Vectors]
    item: list[Vectors]
    linear: list[float]


def sequences(rng: np.random.Generator) -> Sequences:
    length = np.where(np.arange(N_USERS) == GREEDY, N_ITEMS, rng.integers(1, 30, N_USERS))
    ptr = np.concatenate([[0], np.cumsum(length)])
    n = int(ptr[-1])
    item = np.concatenate([rng.choice(N_ITEMS, size, replace=False) for size in length]).astype(np.int32)
    user = Features(np.arange(N_USERS + 1), rng.integers(3, 6, N_USERS).astype(np.int32), np.ones(N_USERS, np.float32))
    context = Context(rng.integers(0, 3, (n, 1)).astype(np.int32), user)
    liked = rng.integers(0, 2, n).astype(np.uint8)
    return Sequences(
        np.arange(N_USERS), ptr, item, liked, np.ones(n, np.float32), np.zeros(n, np.uint8), context=context
    )


def floats(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    return rng.normal(0, 0.5, shape).astype(np.float32)


def genres(rng: np.random.Generator) -> sparse.csr_matrix:
    has = rng.random((N_ITEMS, N_GENRES)) < 0.4
    size = np.maximum(has.sum(axis=1, keepdims=True), 1)
    return sparse.csr_matrix((has / np.sqrt(size)).astype(np.float32))


def item_side(x: sparse.csr_matrix, own: npt.NDArray[np.float32], of_genre: npt.NDArray[np.float32]) -> list[Vectors]:
    rows = x.toarray()
    return [[(own[i], 1.0), *((of_genre[g], rows[i, g]) for g in np.flatnonzero(rows[i]))] for i in range(N_ITEMS)]


def context_side(log: Sequences, factors: npt.NDArray[np.float32]) -> list[Vectors]:
    assert log.context is not None
    time, user = log.context.time, log.context.user
    return [[(factors[time[log.ptr[u], 0]], 1.0), (factors[user.row[u]], 1.0)] for u in range(N_USERS)]


def of_histories(log: Sequences, rng: np.random.Generator) -> Made:
    history, own, of_genre = floats(rng, 2, 2, N_ITEMS, K), floats(rng, N_ITEMS, K), floats(rng, N_GENRES, K)
    bias, genre_bias, context = floats(rng, N_ITEMS), floats(rng, N_GENRES), floats(rng, CONTEXT.n_rows, K)
    x = genres(rng)
    factors, composed = compose(SideFeatures(x, of_genre, genre_bias), own, bias.astype(np.float64))
    machine = Machine(np.array(DECAYS), history, factors, composed.astype(np.float32), CONTEXT, context)
    query = context_side(log, context)
    for u in range(N_USERS):
        item, liked = (part[log.ptr[u] : log.ptr[u + 1]][::-1] for part in (log.item, log.liked))
        for d, decay in enumerate(DECAYS):
            value = decay ** np.arange(len(item))
            value /= np.linalg.norm(value)
            query[u] += [(history[d, liked[s], item[s]], value[s]) for s in range(len(item))]
    linear = bias + x @ genre_bias
    return Made(machine, query, item_side(x, own, of_genre), linear.tolist())


def of_events(log: Sequences, rng: np.random.Generator) -> Made:
    fields = Fields(N_USERS, N_ITEMS, N_GENRES, N_ITEMS, CONTEXT.n_rows)
    parameters = FmParameters(floats(rng, fields.n_rows, K), floats(rng, fields.n_rows + 1))
    x = genres(rng)
    machine = assemble("squared", parameters, fields, x, np.arange(N_USERS), (1.0, 5.0), CONTEXT)
    factors, linear = parameters.factors, parameters.linear[:-1]
    query = context_side(log, factors[fields.context_offset : fields.bag_offset])
    for u in range(N_USERS):
        item = log.item[log.ptr[u] : log.ptr[u + 1]]
        query[u] += [(factors[u], 1.0), *((factors[fields.bag_offset + i], len(item) ** -0.5) for i in item)]
    items, side = slice(fields.item_offset, fields.side_offset), slice(fields.side_offset, fields.context_offset)
    weights = linear[items] + x @ linear[side]
    return Made(machine, query, item_side(x, factors[items], factors[side]), weights.tolist())


def slow_scores(made: Made) -> npt.NDArray[np.float64]:
    """All linear weights of the item, all pairs among its features and with those of the query; [users, items]."""
    scores = np.zeros((N_USERS, N_ITEMS))
    for u, query in enumerate(made.query):
        for i, item in enumerate(made.item):
            pairs = [(a, b) for place, a in enumerate(item) for b in [*item[place + 1 :], *query]]
            scores[u, i] = made.linear[i] + sum(
                x * y * float(v.astype(np.float64) @ w.astype(np.float64)) for (v, x), (w, y) in pairs
            )
    return scores


@pytest.mark.parametrize("n", [10, 2 * N_ITEMS])
@pytest.mark.parametrize("kind", [of_histories, of_events])
def test_lists_equal_sorting_the_whole_score(kind: type, n: int) -> None:
    rng = np.random.default_rng(11)
    log = sequences(rng)
    made = kind(log, rng)
    items = prepare_items(made.machine.item_factors, made.machine.item_bias)
    best = top_n(items, user_queries(log, made.machine, log), n, user_items(log.ptr, log.item))
    scores = slow_scores(made)
    for u in range(N_USERS):
        seen = set(log.item[log.ptr[u] : log.ptr[u + 1]].tolist())
        wanted = [i for i in np.argsort(-scores[u], kind="stable").tolist() if i not in seen][:n]
        assert best.item[u, : best.size[u]].tolist() == wanted
        np.testing.assert_allclose(best.score[u, : best.size[u]], scores[u, wanted], atol=1e-5)
    assert best.size[GREEDY] == 0
    assert n < N_ITEMS or (best.size < n).all()
