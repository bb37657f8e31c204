"""Errors of ratings and quality of probabilities, beside hand-made cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score, root_mean_squared_error

from fm_spark.core.prediction_metrics import RatingSums, label_sums, no_labels, rating_sums


def test_errors_by_hand() -> None:
    sums = rating_sums(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 2.0]))
    assert sums.means() == pytest.approx({"rmse": np.sqrt(5 / 3), "mae": 1.0})
    assert all(np.isnan(value) for value in RatingSums(0, 0, 0).means().values())


def test_a_good_bet_by_hand() -> None:
    # bins 0.2-0.3 (one of two liked) and 0.9-1 (both liked)
    means = label_sums(np.array([0.25, 0.25, 0.95, 0.95]), np.array([0, 1, 1, 1])).means()
    assert means["calibration_error"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.05, abs=1e-6)
    assert means["auc"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert means["log_loss"] == pytest.approx(-np.log([0.75, 0.25, 0.95, 0.95]).mean(), abs=1e-6)


def test_the_same_as_scikit_learn_in_any_parts() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(5000).astype(np.float32)
    y = (rng.random(5000) < p).astype(np.uint8)
    whole = label_sums(p, y)
    means = whole.means()
    assert means["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-4)
    assert means["log_loss"] == pytest.approx(log_loss(y, p), abs=1e-5)
    assert means["calibration_error"] < 0.03
    cut = no_labels().merge(label_sums(p[:77], y[:77])).merge(label_sums(p[77:], y[77:]))
    assert cut.means() == means
    value = rng.normal(3, 1, 5000)
    errors = rating_sums(p, value)
    assert errors.means()["rmse"] == pytest.approx(root_mean_squared_error(value, p), abs=1e-5)
    assert errors.means()["mae"] == pytest.approx(mean_absolute_error(value, p), abs=1e-5)
    assert rating_sums(p[:9], value[:9]).merge(rating_sums(p[9:], value[9:])) == errors


def test_labels_that_are_all_the_same_have_no_order() -> None:
    means = label_sums(np.array([0.2, 1.0]), np.array([1, 1])).means()
    assert np.isnan(means["auc"])
    assert np.isfinite(means["log_loss"])
    assert np.isnan(no_labels().means()["log_loss"])
    assert np.isfinite(label_sums(np.array([1.0]), np.array([0])).means()["log_loss"])
