"""Warm start without Spark: which rows are kept, which settings are taken over, what is refused."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from fm_spark.config import load_config
from fm_spark.core.ensemble import mean_factors
from fm_spark.core.fm_parameters import FmParameters
from fm_spark.core.parameters import INITIAL_STATE, init_parameters
from fm_spark.core.side import compose, no_progress
from fm_spark.errors import ConfigError
from fm_spark.tables.runs import ModelRecord
from fm_spark.training.ensemble import EnsembleLearnt
from fm_spark.training.event_learner import EventLearnt
from fm_spark.training.features import history_fields
from fm_spark.training.ranker import RankerLearnt
from fm_spark.training.recipes import recipes_to_try
from fm_spark.training.resolve import DataSize
from fm_spark.training.warm_rows import FieldValues, Layout, OldRows, continued, old_rows
from fm_spark.training.warm_start import OldModels, check_fields, warm_settings

K = 3
# item 30 is new, 20 had no event; the genre B is new, and so is the user 8
OLD = {"item": ["10", "20", "40", "unseen"], "genre": ["A"], "user": ["7", "9"], "bag": ["10", "20", "40"]}
LAYOUT = Layout(["10", "20", "30", "40"], [FieldValues("genre", ["A", "B"])], ["7", "8", "9"], (0.5,))
X = sparse.csr_matrix(np.array([[1, 0], [0, 1], [0.7, 0.7], [1, 0]], np.float32))


def parameters(fields: list[str], k: int = K) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [
        (field, value, float(np.float32(rng.normal())), rng.normal(size=k).astype(np.float32), int(value != "20"))
        for field in fields
        for value in OLD.get(field, OLD["bag"])
    ]
    return pd.DataFrame(rows, columns=["field", "value", "bias", "factors", "count"])


def vector(old: OldRows, field: str, value: str) -> np.ndarray:
    return old.fields[field].loc[value, "factors"]


def events_machine() -> EventLearnt:
    rng = np.random.default_rng(5)
    return EventLearnt(FmParameters(rng.random((3 + 4 + 2 + 4, K), np.float32), rng.random(14).astype(np.float32)))


def test_known_rows_of_a_machine_over_events_are_kept_bit_for_bit() -> None:
    old = old_rows("fm-old", parameters(["item", "genre", "user", "bag"]), 3.25, 1)
    fresh, found = events_machine().parameters, continued(old, events_machine(), LAYOUT, 5).parameters
    names = [("user", v) for v in LAYOUT.users] + [("item", v) for v in LAYOUT.items]
    names += [("genre", v) for v in ("A", "B")] + [("bag", v) for v in LAYOUT.items]
    kept = 0
    for row, (field, value) in enumerate(names):
        if value in old.fields[field].index and value != "20":
            assert np.array_equal(found.factors[row], vector(old, field, value))
            assert found.linear[row] == np.float32(old.fields[field].loc[value, "bias"])
            kept += 1
        else:
            assert np.array_equal(found.factors[row], fresh.factors[row])
            assert found.linear[row] == fresh.linear[row]
    assert kept == 2 + 2 + 1 + 2
    assert found.linear[-1] == 3.25


def start(seed: int) -> RankerLearnt:
    return RankerLearnt(init_parameters(1, np.array([3, 1, 2, 5]), K, 0.1, seed), no_progress(X, K))


def test_known_rows_of_a_ranker_are_kept_and_items_composed() -> None:
    fields = ["item", "genre", *history_fields((0.5,))]
    old = old_rows("fm-old", parameters(fields), 0.0, 1)
    fresh, (found, side) = start(1).parameters, continued(old, start(1), LAYOUT, 5)
    for table, field in enumerate(history_fields((0.5,))):
        for place, value in enumerate(LAYOUT.items):
            row = 4 * table + place
            wanted = vector(old, field, value) if value in ("10", "40") else fresh.factors[row]
            assert np.array_equal(found.factors[row], wanted)
    assert side is not None
    assert np.array_equal(side.factors[0], vector(old, "genre", "A"))
    assert not side.factors[1].any()
    own, bias = fresh.item_factors.copy(), fresh.bias.astype(np.float64)
    for place, value in ((0, "10"), (3, "40")):
        own[place], bias[place] = vector(old, "item", value), old.fields["item"].loc[value, "bias"]
    wanted = compose(side, own, bias)
    assert np.array_equal(found.item_factors, wanted[0])
    np.testing.assert_allclose(found.bias, wanted[1], atol=1e-6)
    # rows that have learnt make smaller steps; new ones do not
    for state in (found.factors_state.reshape(3, 4), found.bias_state.reshape(1, 4)):
        assert (state[:, [0, 3]] > INITIAL_STATE).all()
        assert (state[:, [1, 2]] == INITIAL_STATE).all()


def test_members_of_an_ensemble_get_their_own_factors() -> None:
    members = [parameters(["item", *history_fields((0.5,))]) for _ in range(2)]
    both = members[0].copy()
    members[1]["factors"] = [-2 * v for v in members[1]["factors"]]
    both["factors"] = list(mean_factors([np.stack(m["factors"].tolist()) for m in members]))
    old = old_rows("fm-old", both, 0.0, 2)
    layout = Layout(LAYOUT.items, [], [], (0.5,))
    alone = [RankerLearnt(init_parameters(1, np.ones(4), K, 0.1, seed), None) for seed in (1, 2)]
    found = continued(old, EnsembleLearnt(tuple(alone)), layout, 5)
    for member, rows in zip(found.members, members, strict=True):
        wanted = rows[(rows.field == "history_liked_0.5") & (rows.value == "40")]["factors"].iloc[0]
        np.testing.assert_allclose(member.parameters.factors[4 + 3], wanted, rtol=3e-7)


def model(loss: str, **changes: object) -> OldModels:
    settings = {"learning_rate": "0.1", "learning_rate_decay": "0.85", "l2": "0.2", "batch_size": "256"}
    settings |= {"negatives": "512", "target_decay": "0.3", "l2_bias": "0", "user": "true", "bag": "false"}
    values = {
        "model_version": "fm-old", "run_id": "old", "created_at": datetime(2020, 1, 1, tzinfo=UTC),
        "purpose": "publish", "loss": loss, "k": 64, "w0": 0.0, "epochs": 20, "decays": [0.8, 0.98],
        "hyperparameters": settings, "metrics": {}, "input_versions": {}, "library_versions": {}, "config": "{}",
        **changes,
    }  # fmt: skip
    record = ModelRecord(**values)  # type: ignore[arg-type]
    return OldModels(record, record)


def test_what_is_auto_comes_from_the_old_model() -> None:
    config = load_config(overrides=["train.warm_start=latest", "train.negatives=32"]).train
    settled = warm_settings(config, model("softmax"))
    (recipe,) = recipes_to_try(settled, DataSize(9, 9, 9, 9))
    assert recipe.settings.decays == (0.8, 0.98)
    assert (recipe.settings.l2, recipe.settings.batch_size, recipe.settings.target_decay) == (0.2, 256, 0.3)
    assert recipe.settings.negatives == 32  # the configuration's own
    assert recipe.epochs == settled.epochs < 20
    assert settled.warm_start == "fm-old"
    # a machine that was itself continued: the shares are of the first run's epochs and rate
    settings = {**model("softmax").publish.hyperparameters, "full_epochs": "20"}
    settings |= {"learning_rate": "0.03", "full_learning_rate": "0.1"}
    assert warm_settings(config, model("softmax", epochs=5, hyperparameters=settings)) == settled
    assert settled.epochs == 5
    assert settled.learning_rate == pytest.approx(0.1 * 0.85 ** (20 / 3))
    config = load_config(overrides=["train.warm_start=latest", "train.loss=bpr"]).train
    (warm,) = recipes_to_try(warm_settings(config, model("bpr")), DataSize(9, 9, 9, 9))
    rates = warm.settings
    assert (rates.user, rates.bag, rates.l2) == (True, False, 0.2)
    assert 1 <= rates.average_from <= 5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["train.loss=bpr"], r"train.loss = 'bpr', and .* is fm-old with 'softmax'"),
        (["train.k=8"], r"train.k = 8, and .* is fm-old with 64; give train.k = 64"),
        (["train.ensemble=2"], r"train.ensemble = 2, and .* is fm-old with 1"),
        (["train.decays=[0.5]"], r"train.decays = \[0.5\], and .* with \[0.8, 0.98\]"),
    ],
)
def test_another_machine_is_refused(keys: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        warm_settings(load_config(overrides=["train.warm_start=latest", *keys]).train, model("softmax"))


def test_other_fields_are_refused() -> None:
    old = model("bpr")
    config = warm_settings(load_config(overrides=["train.warm_start=latest", "train.loss=bpr"]).train, old)
    check_fields(config, LAYOUT, old, {"item", "genre", "user"})
    with pytest.raises(ConfigError, match=r"has the fields genre, item, user, and .* ask for item, user;"):
        check_fields(config, Layout([], [], [], ()), old, {"item", "genre", "user"})


def test_rows_of_the_context_lie_between_histories_and_items() -> None:
    layout = Layout(LAYOUT.items, [], [], (0.5,), (FieldValues("hour", ["1", "2"]),))
    frame = parameters(["item", *history_fields((0.5,))])
    hours = pd.DataFrame([("hour", "2", 0.5, np.full(K, 7, np.float32), 9)], columns=frame.columns)
    old = old_rows("fm-old", pd.concat([frame, hours], ignore_index=True), 0.0, 1)
    made = start(1).parameters
    rows = np.insert(made.factors, 8, np.ones((2, K)), axis=0)
    learnt = RankerLearnt(made._replace(factors=rows, factors_state=np.full(len(rows), INITIAL_STATE)), None)
    found = continued(old, learnt, layout, 5).parameters
    assert np.array_equal(found.factors[8:10], [np.ones(K), np.full(K, 7)])
    assert found.factors_state[8] == INITIAL_STATE < found.factors_state[9]
    assert np.array_equal(found.item_factors[3], vector(old, "item", "40"))
