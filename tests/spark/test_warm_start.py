"""Warm start on Spark: a second run goes on from the first one, keeps its rows, and leaks nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from event_inputs import csv_folder
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.config import Config, load_config
from fm_spark.errors import ConfigError, TableError
from fm_spark.tables.contracts import FM_MODEL, FM_PARAMETERS
from fm_spark.tables.store import TableStore
from fm_spark.training.warm_start import find_old
from jobs import evaluate, events, train

N_USERS, N_ITEMS, N_TASTES, EVENTS = 60, 80, 4, 20
KEYS = {
    "softmax": ["train.k=4", "train.decays=[0.5,0.9]", "train.negatives=32", "train.batch_size=64", "train.l2=0.02",
                "train.target_decay=0", "train.learning_rate=0.05", "train.learning_rate_decay=0.97",
                "train.init_std=0.1", "train.tune_seconds=0"],
    "squared": ["train.k=4", "train.learning_rate=0.05", "train.init_std=0.3", "train.tune_seconds=0"],
}  # fmt: skip
EPOCHS, FEW = 30, 2


def full_log() -> pd.DataFrame:
    """Each user likes 14 items of his taste, one of four, and dislikes 6 others."""
    rng = np.random.default_rng(0)
    made = []
    for user in range(N_USERS):
        taste = np.arange(N_ITEMS) % N_TASTES == user % N_TASTES
        items = [rng.permutation(np.flatnonzero(taste))[:14], rng.permutation(np.flatnonzero(~taste))[:6]]
        for position, item in enumerate(rng.permutation(np.concatenate(items))):
            made.append((user, position, int(item), 4.5 if taste[item] else 1.5))
    return pd.DataFrame(made, columns=["user", "position", "item", "value"])


def write_input(folder: Path, log: pd.DataFrame) -> Path:
    """The log as a folder of ratings; the films are those that it knows."""
    ratings = [f"{u + 1},{i + 1},{v},{10**5 * u + p}" for u, p, i, v in log.itertuples(index=False)]
    films = [f"{i + 1},Film {i} (2000),{'A' if i % 3 else 'A|B'}" for i in sorted(log.item.unique())]
    return csv_folder(folder, ratings, films)


def configured(base: Config, run_id: str, *keys: str) -> Config:
    """The configuration of another run on the same tables."""
    paths = [f"input.path='{base.input.path}'", f"tables.root='{base.tables.root}'"]
    config = load_config(overrides=[*paths, *keys])
    return replace(config, run=replace(config.run, id=run_id))


@pytest.fixture(scope="module", params=["softmax", "squared"])
def old(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run on a part of the log; afterwards the events are those of the whole log."""
    loss, folder = request.param, tmp_path_factory.mktemp(f"warm-{request.param}")
    keys = [f"train.loss={loss}", *KEYS[loss]]
    log = full_log()
    # the part ends earlier for every user, and knows neither the last users nor the last items
    early, new = (log.position < 12) & (log.user < 54), log.item >= 76
    first, second = write_input(folder / "part", log[early & ~new]), write_input(folder / "whole", log[~early | ~new])
    part = load_config(
        overrides=[f"tables.root='{folder / 'tables'}'", f"input.path='{first}'", *keys, f"train.epochs={EPOCHS}"]
    )
    part = replace(part, run=replace(part.run, id="old"))
    events.run(spark, part)
    train.run(spark, part)
    whole = replace(part, input=replace(part.input, path=str(second)))
    events.run(spark, replace(whole, run=replace(whole.run, id="new")))
    return whole


def measured(spark: SparkSession, config: Config) -> tuple[float, dict[str, str], int]:
    """NDCG@10, or minus the RMSE, of a run on the test part; what its measured model says of itself."""
    result = train.run(spark, config)
    found = evaluate.run(spark, config)
    squared = config.train.loss == "squared"
    quality = -found.predictions["fm"]["rmse"] if squared else found.metrics["fm"]["ndcg_at_10"]
    models = TableStore(spark, config.tables.root).read(FM_MODEL)
    row = models.where(F.col("model_version") == result.evaluation_version).first()
    return quality, row["hyperparameters"], row["epochs"]


def test_a_few_epochs_are_enough_where_a_cold_start_needs_many(spark: SparkSession, old: Config) -> None:
    loss = old.train.loss
    keys = [f"train.loss={loss}", *KEYS[loss], f"train.epochs={FEW}"]
    cold, _, _ = measured(spark, configured(old, "cold", *keys))
    warm, said, epochs = measured(spark, configured(old, "warm", *keys, "train.warm_start=old"))
    assert said["warm_start"] == "fm-old-eval"
    assert epochs == FEW
    bound = {"softmax": 0.45, "squared": -1.0}[loss]
    assert cold < bound < warm


def test_rows_of_the_old_machine_are_kept(spark: SparkSession, old: Config) -> None:
    loss = old.train.loss
    # steps that the grid of the sums does not see
    keys = [f"train.loss={loss}", *KEYS[loss], "train.learning_rate=1e-30", "train.epochs=1"]
    train.run(spark, configured(old, "still", *keys, "train.warm_start=fm-old"))
    frame = TableStore(spark, old.tables.root).read(FM_PARAMETERS).toPandas().set_index(["field", "value"])
    for kind in ("", "-eval"):
        then, now = (frame[frame.model_version == f"fm-{run}{kind}"] for run in ("old", "still"))
        known = then[then["count"] > 0]
        assert len(known) > 150
        assert len(now) > len(then)  # new users, new items
        found = now.loc[known.index]
        ours = (np.stack(found.factors.tolist()), np.stack(known.factors.tolist()))
        exact = known.index.get_level_values("field") != "item"  # composed with their genres, and taken apart
        assert np.array_equal(ours[0][exact], ours[1][exact])
        np.testing.assert_allclose(ours[0], ours[1], atol=1e-6)
        np.testing.assert_allclose(found.bias, known.bias, atol=1e-5)
        new = now[~now.index.isin(then.index) & (now["count"] > 0)]
        assert len(new) > 0
        # bags of machines over events start at zero
        assert (
            np.abs(np.stack(new[new.index.get_level_values("field") != "bag"].factors.tolist())).max(axis=1) > 0
        ).all()


def test_what_cannot_be_continued_is_refused(spark: SparkSession, old: Config) -> None:
    keys = [f"train.loss={old.train.loss}", *KEYS[old.train.loss]]
    store = TableStore(spark, old.tables.root)
    with pytest.raises(ConfigError, match=r"train.warm_start = 'fm-odl' is no published model .*there are fm-.*fm-old"):
        train.run(spark, configured(old, "new", *keys, "train.warm_start=fm-odl"))
    with pytest.raises(ConfigError, match=r"of this very run"):
        train.run(spark, configured(old, "old", *keys, "train.warm_start=old"))
    with pytest.raises(ConfigError, match=r"train.k = 3, and train.warm_start = 'old' is fm-old with 4"):
        train.run(spark, configured(old, "new", *keys, "train.k=3", "train.warm_start=old"))
    with pytest.raises(ConfigError, match=r"fields .*genre.*ask for"):
        train.run(spark, configured(old, "new", *keys, "train.genres=false", "train.warm_start=old"))
    with pytest.raises(ConfigError, match=r"events.test_fraction = 0.3 and was 0.2"):
        train.run(spark, configured(old, "new", *keys, "events.test_fraction=0.3", "train.warm_start=old"))
    with pytest.raises(TableError, match=r"no model yet"):
        find_old(TableStore(spark, str(Path(old.tables.root) / "nothing")), "latest", "new")
    assert find_old(store, "latest", "new").publish.run_id != "new"
    assert find_old(store, "fm-old", "new").evaluation.model_version == "fm-old-eval"


def test_events_that_are_held_out_now_may_not_have_trained(spark: SparkSession, old: Config) -> None:
    # the log shrinks: what is a user's tail now was in his training part
    log = full_log()
    path = write_input(Path(old.tables.root).parent / "shrunk", log[(log.position < 8) & (log.user < 54)])
    shrunk = replace(old, input=replace(old.input, path=str(path)), run=replace(old.run, id="shrunk"))
    events.run(spark, shrunk)
    keys = [f"train.loss={old.train.loss}", *KEYS[old.train.loss], "train.warm_start=old"]
    with pytest.raises(ConfigError, match=r"fm-old-eval was trained on \d+ events that are held out now"):
        train.run(spark, configured(shrunk, "shrunk", *keys))
