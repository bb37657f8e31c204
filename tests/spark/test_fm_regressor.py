"""Our scorer on the coefficients of Spark's own FMRegressor gives Spark's predictions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from pyspark.ml.linalg import SparseVector
from pyspark.ml.regression import FMRegressor
from pyspark.sql import SparkSession

from fm_spark.core.fm_events import Events, Features, Fields, no_features
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.pointwise import predict

FIELDS = Fields(n_users=7, n_items=5, n_side=3)
CONTEXT = 4
N_ROWS = FIELDS.n_rows + CONTEXT
K = 6


def events_and_vectors() -> tuple[Events, Features, list[SparseVector], npt.NDArray[np.float64]]:
    """Ratings with a user, an item, the item's genres and one or two features of the moment, in both forms."""
    rng = np.random.default_rng(5)
    genres = [[0], [1, 2], [], [0, 1, 2], [2]]
    counts = rng.integers(3, 9, FIELDS.n_users)
    user = np.repeat(np.arange(FIELDS.n_users), counts).astype(np.int32)
    n = len(user)
    item = rng.integers(0, FIELDS.n_items, n)
    moments = [rng.choice(CONTEXT, rng.integers(1, 3), replace=False) for _ in range(n)]
    strength = rng.uniform(0.2, 2.0, n)
    side = Features(
        np.cumsum([0, *map(len, genres)]),
        np.array([FIELDS.side_offset + g for names in genres for g in names], np.int32),
        np.array([len(names) ** -0.5 for names in genres for _ in names], np.float32),
    )
    context = Features(
        np.cumsum([0, *map(len, moments)]),
        np.array([FIELDS.n_rows + j for found in moments for j in found], np.int32),
        np.repeat(strength, [len(found) for found in moments]).astype(np.float32),
    )
    vectors = []
    for e in range(n):
        of_item = slice(side.ptr[item[e]], side.ptr[item[e] + 1])
        of_event = slice(context.ptr[e], context.ptr[e + 1])
        values = {int(user[e]): 1.0, FIELDS.item_offset + int(item[e]): 1.0}
        values |= dict(zip(side.row[of_item].tolist(), side.value[of_item].tolist(), strict=True))
        values |= dict(zip(context.row[of_event].tolist(), context.value[of_event].tolist(), strict=True))
        vectors.append(SparseVector(N_ROWS, values))
    label = rng.normal(3.5, 1.0, n)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = (item + FIELDS.item_offset).astype(np.int32)
    one = np.ones(n, np.float32)
    events = Events(np.arange(7), ptr, user, rows, label.astype(np.float32), one, context, no_features(FIELDS.n_users))
    return events, side, vectors, label


def test_our_scorer_gives_the_predictions_of_fm_regressor(spark: SparkSession) -> None:
    events, side, vectors, label = events_and_vectors()
    rows = [(i, vector, float(y)) for i, (vector, y) in enumerate(zip(vectors, label, strict=True))]
    data = spark.createDataFrame(rows, ["id", "features", "label"])
    fitted = FMRegressor(factorSize=K, maxIter=5, stepSize=0.1, initStd=0.3, seed=1).fit(data)
    theirs = [row.prediction for row in fitted.transform(data).orderBy("id").select("prediction").collect()]
    factors = fitted.factors.toArray()
    linear = np.append(fitted.linear.toArray(), fitted.intercept)
    ours = np.empty(len(rows))
    predict(FmParameters(factors, linear), events, side, FIELDS.item_offset, ours)
    assert np.abs(factors).max() > 0.1  # the pairs matter
    assert ours == pytest.approx(np.array(theirs), abs=1e-9, rel=0)
