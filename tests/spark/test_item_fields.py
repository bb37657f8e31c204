"""Years and columns of an items file, from the file through training to the machine that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from event_inputs import settings, write
from pyspark.sql import SparkSession

from fm_spark.config import Config
from fm_spark.core.fm_machine import FmMachine
from fm_spark.core.machine import Machine
from fm_spark.errors import ConfigError, InputError
from fm_spark.events.read import read_input
from fm_spark.ranking.inputs import RankingInputs, load_inputs
from fm_spark.tables.store import TableStore
from jobs import events, train

COLUMNS = ["brand:categorical", "kinds:multi", "price:numeric", "nothing:multi"]
N_ITEMS = 12


def item_lines() -> list[str]:
    """Items 0 to 10 of 12; some values are not known."""
    lines = ["item_id,title,year,brand,kinds,price,nothing"]
    for item in range(N_ITEMS - 1):
        year, brand = ("" if item == 3 else 1990 + item), ("" if item == 4 else "ab"[item % 2])
        kinds, price = ["", "x", "y|x", "x|y|z"][item % 4], ("nan" if item == 5 else item * 1.5)
        lines.append(f"{item},Item {item},{year},{brand},{kinds},{price},")
    return lines


def config_of(folder: Path, **keys: object) -> Config:
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,time,rating"]
    for user in range(30):
        for place, item in enumerate(rng.permutation(N_ITEMS)[:9]):
            rows.append(f"{user},{item},{100 * user + place},{5 if (user + item) % 2 == 0 else 2}")
    write(folder / "events.csv", "\n".join(rows) + "\n")
    write(folder / "items.csv", "\n".join(item_lines()) + "\n")
    given: dict[str, object] = {
        "input__value_column": "rating", "input__items_path": str(folder / "items.csv"), "input__item_columns": COLUMNS,
        "input__items_year_column": "year", "tables__root": str(folder / "tables"), "run__id": "r",
        "train__year": True, "train__k": 3, "train__epochs": 2, "train__refit": False, "train__init_std": 0.5,
        "events__min_positives": 2, "train__tune_seconds": 0.0,
    }  # fmt: skip
    return settings(folder / "events.csv", **{**given, **keys})


def served(spark: SparkSession, config: Config) -> tuple[RankingInputs, pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """The machine as every job loads it, without the configuration that it was trained with; and its tables."""
    bare = settings("nowhere", tables__root=config.tables.root, run__id="r")
    inputs = load_inputs(TableStore(spark, config.tables.root), bare, "publish")

    def table(name: str) -> pd.DataFrame:
        return DeltaTable(f"{config.tables.root}/{name}").to_pandas()

    model = table("fm_model").query("purpose == 'publish'").iloc[0]
    parameters = table("fm_parameters").query(f"model_version == '{model.model_version}'")
    return inputs, parameters.set_index(["field", "value"]), model, table("items").sort_values("item_id")


def active(item: Any) -> list[tuple[tuple[str, str], float]]:
    """The features of an item with their values, by the words of docs/mathematics.md."""
    own = dict(item.attributes)
    first = int(item.year) // 5 * 5 if not np.isnan(item.year) else None
    fields = {
        "genre": list(item.genres), "year": ["__unseen__" if first is None else f"{first}-{first + 4}"],
        **{f"item:{name}": list(own[name]) for name in ("brand", "kinds", "nothing", "price")},
    }  # fmt: skip
    one_hot: list[tuple[tuple[str, str], float]] = [(("item", str(item.item_id)), 1.0)]
    return one_hot + [((f, value), len(values) ** -0.5) for f, values in fields.items() for value in values]


def pairwise(parameters: pd.DataFrame, features: list[tuple[tuple[str, str], float]]) -> float:
    """<w, x> + sum over the pairs of <v_i, v_j> x_i x_j, pair by pair."""
    vectors = [np.asarray(parameters.loc[name, "factors"], float) * x for name, x in features]
    linear = sum(parameters.loc[name, "bias"] * x for name, x in features)
    return float(linear + sum(a @ b for i, a in enumerate(vectors) for b in vectors[:i]))


def test_scores_over_histories_follow_from_the_rows_alone(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    events.run(spark, config)
    train.run(spark, config)
    inputs, parameters, model, items = served(spark, config)
    machine = inputs.machine
    assert isinstance(machine, Machine)
    assert {field for field, _ in parameters.index} == {
        "item", "year", "item:brand", "item:kinds", "item:nothing", "item:price",
        *(f"history_{kind}_{decay:g}" for decay in model.decays for kind in ("liked", "not_liked")),
    }  # fmt: skip
    # one liked event, of item 0: the value of each bag is 1
    history = [((f"history_liked_{decay:g}", "0"), 1.0) for decay in model.decays]
    said = [pairwise(parameters, [*history, *active(item)]) for item in items.itertuples()]
    query = sum(np.asarray(parameters.loc[name, "factors"], float) for name, _ in history)
    scores = machine.item_bias + machine.item_factors @ query
    np.testing.assert_allclose(scores, np.array(said) - pairwise(parameters, history), atol=1e-4)
    # what is not known is a feature that such items train; it is in the vocabulary of every field
    unseen = parameters.xs("__unseen__", level="value")
    for field in ("year", "item:brand", "item:price"):
        assert np.any(np.array(unseen.loc[field, "factors"]) != 0.0), field
        assert unseen.loc[field, "count"] > 0
    for field in ("item:kinds", "item:nothing", "item"):
        assert not np.any(np.array(unseen.loc[field, "factors"])), field
    vocabulary = DeltaTable(f"{config.tables.root}/vocabulary").to_pandas().set_index(["field", "value"])["feature"]
    assert parameters["feature"].to_dict() == vocabulary.loc[parameters.index].to_dict()


def test_ratings_follow_from_the_rows_alone(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path, train__loss="squared", train__bag=False)
    events.run(spark, config)
    train.run(spark, config)
    inputs, parameters, _, items = served(spark, config)
    machine = inputs.machine
    assert isinstance(machine, FmMachine)
    assert machine.fields.n_side == sum(field.startswith(("year", "item:")) for field, _ in parameters.index) - 2
    user = np.asarray(parameters.loc[("user", "7"), "factors"], float)
    scores = machine.item_bias + machine.item_factors @ user
    of_user = [(("user", "7"), 1.0)]
    said = [pairwise(parameters, of_user + active(item)) for item in items.itertuples()]
    np.testing.assert_allclose(scores, np.array(said) - pairwise(parameters, of_user), atol=1e-4)
    assert np.ptp(said) > 0.1


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta"])
def test_columns_of_every_kind_of_file(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    config = config_of(tmp_path)
    if kind != "csv":
        rows = spark.read.csv(str(tmp_path / "items.csv"), header=True)
        typed = rows.selectExpr("cast(item_id as int) item_id", "title", "cast(year as int) year", "brand",
                                "split(kinds, '[|]') kinds", "cast(price as double) price", "nothing")  # fmt: skip
        typed.write.format(kind).save(str(tmp_path / "items"))
        config = config_of(tmp_path, input__items_path=str(tmp_path / "items"))
    raw = read_input(spark, config.input)
    assert raw.items is not None
    found = {row["item_id"]: row["attributes"] for row in raw.items.collect()}
    assert found[2] == {"brand": ["a"], "kinds": ["x", "y"], "price": ["3/10"], "nothing": []}
    assert found[4] == {"brand": ["__unseen__"], "kinds": [], "price": ["5/10"], "nothing": []}
    assert found[5]["price"] == ["__unseen__"]


def test_rows_with_text_for_a_number(spark: SparkSession, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lines = [*item_lines(), "90,Item,1990,a,x,cheap,"]
    write(tmp_path / "items.csv", "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"items\.csv line 13: 90.* \(price 'cheap' is not a finite number\)"):
        read_input(spark, config.input)
    drop = config_of(tmp_path, input__bad_rows="drop")
    write(tmp_path / "items.csv", "\n".join(lines) + "\n")
    raw = read_input(spark, drop.input)
    assert raw.items is not None
    assert raw.items.count() == N_ITEMS - 1
    assert {f.check: f.rows for f in raw.findings}["unreadable_items"] == 1


def test_columns_that_cannot_be_read(spark: SparkSession, tmp_path: Path) -> None:
    wrong = config_of(tmp_path, input__item_columns=["colour:multi"])
    with pytest.raises(InputError, match=r"no column 'colour'; its header has item_id, title, .*input\.item_columns"):
        read_input(spark, wrong.input)
    with pytest.raises(InputError, match=r"input\.item_columns .* needs a file of items"):
        read_input(spark, config_of(tmp_path, input__items_path="").input)
    with pytest.raises(ConfigError, match=r"'item_id', which is the column of the ids"):
        read_input(spark, config_of(tmp_path, input__item_columns=["item_id:multi"]).input)
    write(tmp_path / "ml" / "ratings.dat", "1::10::5::838985046\n2::20::4::838983525\n")
    write(tmp_path / "ml" / "movies.dat", "10::Ten (2001)::Comedy\n20::Brève (2000)::Drama\n")
    with pytest.raises(InputError, match=r"movies\.dat has no named columns"):
        read_input(spark, settings(tmp_path / "ml", input__item_columns=["colour:multi"]).input)


def test_columns_of_a_movielens_file(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.0,5\n2,20,4.0,5\n")
    write(tmp_path / "movies.csv", "movieId,title,genres,studio\n10,Ten (1910),Drama,A\n20,Two (1920),,\n")
    raw = read_input(spark, settings(tmp_path, input__item_columns=["studio:categorical"]).input)
    assert raw.items is not None
    found = {row["item_id"]: row["attributes"] for row in raw.items.collect()}
    assert found == {10: {"studio": ["A"]}, 20: {"studio": ["__unseen__"]}}
