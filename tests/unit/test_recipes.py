"""Settings of a fit: what ``auto`` gives, which candidates are tried, and what the kernels read of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fm_spark.config import load_config
from fm_spark.core.local_steps import run_block
from fm_spark.training.recipes import EventRates, event_candidates, recipes_to_try
from fm_spark.training.resolve import DataSize, init_std
from tests.unit.test_rounds_core import OPTIONS, make

SMALL = DataSize(600, 80_000, 40_000, 6_000)
MIDDLE = DataSize(6_040, 900_000, 500_000, 3_700)
LARGE = DataSize(160_000, 25_000_000, 12_000_000, 40_000)


def rates(*keys: str, size: DataSize = SMALL) -> list[EventRates]:
    config = load_config(overrides=["train.loss=squared", *keys]).train
    return [recipe.settings for recipe in event_candidates(config, size)]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_settings_for_small_and_for_large_data_change_places(loss: str) -> None:
    small, large = (rates(f"train.loss={loss}", size=size) for size in (SMALL, MIDDLE))
    assert small == large[::-1]
    assert small[0].l2_bag > large[0].l2_bag


def test_what_is_tried_fits_the_time_and_a_key_that_is_set_is_in_all_of_it() -> None:
    config = load_config(overrides=["train.loss=squared"]).train
    assert [len(recipes_to_try(config, size)) for size in (SMALL, MIDDLE, LARGE)] == [2, 2, 1]
    assert len(recipes_to_try(replace(config, tune_seconds=0.0), SMALL)) == 1
    assert {one.l2_bag for one in rates("train.l2_bag=0.5")} == {0.5}
    same = load_config(overrides=["train.loss=squared", "train.l2_bag=0.5", "train.l2=0.1"]).train
    assert len(recipes_to_try(same, SMALL)) == 1  # nothing is left that tells them apart


def test_rates_and_l2_of_biases_and_of_w0_are_their_own() -> None:
    own = ["train.bias_rate=0.5", "train.w0_rate=0.25", "train.l2_bias=0.3", "train.l2_w0=0.2"]
    steps = rates("train.learning_rate=0.04", "train.l2=0.1", "train.l2_bag=0.4", *own)[0].resolved().steps
    assert steps == pytest.approx((0.01, 0.02, 0.04, 0.2, 0.3, 0.1, 0.4))
    recipe = event_candidates(load_config(overrides=["train.loss=squared"]).train, SMALL)[0]
    first, later = recipe.settings.resolved().steps, recipe.at_epoch(3).resolved().steps
    share = recipe.learning_rate_decay**3
    assert later[:3] == pytest.approx([share * rate for rate in first[:3]])
    assert later[3:] == first[3:]


def test_the_rate_of_the_items_biases_scales_their_steps_alone() -> None:
    sequences, parameters, sampler, work = make(1)
    options = OPTIONS._replace(batch_size=1_000, l2=0.0)  # one step, so that the biases do not come back to the factors

    def moved(bias_rate: float):  # type: ignore[no-untyped-def]
        own = options._replace(bias_rate=bias_rate)
        return run_block(parameters, work, sequences, sampler, own, np.random.default_rng(2))

    whole, quarter = moved(1.0), moved(0.25)
    np.testing.assert_array_equal(quarter.factors, whole.factors)
    np.testing.assert_allclose(quarter.bias, whole.bias / 4, rtol=1e-4, atol=1e-7)
    assert np.abs(whole.bias).max() > 0.01


def test_factors_start_smaller_where_ratings_are_learnt() -> None:
    losses = {"softmax": 0.05, "bpr": 0.05, "squared": 0.02, "logistic": 0.02}
    for loss, expected in losses.items():
        assert init_std(load_config(overrides=[f"train.loss={loss}"]).train) == expected
    assert init_std(load_config(overrides=["train.loss=squared", "train.local_steps=off"]).train) == 0.05
    assert init_std(load_config(overrides=["train.loss=squared", "train.init_std=0.3"]).train) == 0.3
