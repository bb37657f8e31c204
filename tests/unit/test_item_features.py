"""Side features of items: names, values, bins, and what is not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fm_spark.config import Config, load_config
from fm_spark.core import side as side_module
from fm_spark.core.parameters import Parameters
from fm_spark.core.side import no_progress, share_move
from fm_spark.errors import InputError
from fm_spark.events.catalogue import Catalogue
from fm_spark.training.features import item_features, ordered_fields, side_fields, year_bin

GENRES = [["War", "Art"], [], ["Art"], ["Art"]]
YEARS = [1995, None, 1999, 2000]
ATTRIBUTES = [
    {"__tags__": ["dark", "odd"], "brand": ["b"], "kinds": ["x", "y", "z"], "price": ["1/2"]},
    {"__tags__": [], "brand": ["__unseen__"], "kinds": [], "price": ["2/2"]},
    {"__tags__": ["dark"], "brand": ["a"], "kinds": ["x"], "price": ["__unseen__"]},
    {"__tags__": [], "brand": ["b"], "kinds": [], "price": ["1/2"]},
]
FIELDS = ["genre", "year", "tag", "item:brand", "item:kinds", "item:price"]


def catalogue(**changes: Any) -> Catalogue:
    places = np.arange(4, dtype=np.int32)
    values = {"genres": GENRES, "year": YEARS, "attributes": ATTRIBUTES} | changes
    titles = np.array(list("abcd"), dtype=object)
    return Catalogue(item_id=places + 1, title=titles, count=places, feature=places, feature_to_item=places, **values)


def train(*keys: str) -> Config:
    return load_config(overrides=[f"train.{key}" for key in keys])


def dense(names: list[str], values: dict[str, list[float]]) -> np.ndarray:
    return np.array([values[name] for name in names], dtype=np.float32).T


def test_fields_follow_from_the_switches_and_the_columns() -> None:
    given = catalogue()
    assert side_fields(train("year=true", "tags=true").train, given) == FIELDS
    assert side_fields(train().train, given) == ["genre", *FIELDS[3:]]
    plain = catalogue(attributes=[{}] * 4)
    assert side_fields(train().train, plain) == ["genre"]
    assert side_fields(train("genres=false").train, plain) == []
    assert side_fields(train().train, catalogue(genres=[[]] * 4, attributes=[{}] * 4)) == []
    assert ordered_fields({"item:b", "item", "tag", "history_liked_0.5", "user", "item:a", "genre"}) == [
        "genre", "tag", "item:a", "item:b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("year", {"year": [None] * 4}),
        ("tags", {"attributes": [{"__tags__": []}] * 4}),
        ("tags", {"attributes": [{}] * 4}),
    ],
)
def test_switches_without_values_are_refused(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"train\.{key} = true, but"):
        side_fields(train(f"{key}=true").train, catalogue(**changes))


def test_every_field_is_multi_hot_and_lies_side_by_side() -> None:
    side = item_features(catalogue(), FIELDS)
    two, three = 2**-0.5, 3**-0.5
    expected = {
        "genre": {"Art": [two, 0, 1, 1], "War": [two, 0, 0, 0]},
        "year": {"1995-1999": [1, 0, 1, 0], "2000-2004": [0, 0, 0, 1], "__unseen__": [0, 1, 0, 0]},
        "tag": {"dark": [two, 0, 1, 0], "odd": [two, 0, 0, 0]},
        "item:brand": {"__unseen__": [0, 1, 0, 0], "a": [0, 0, 1, 0], "b": [1, 0, 0, 1]},
        "item:kinds": {"x": [three, 0, 1, 0], "y": [three, 0, 0, 0], "z": [three, 0, 0, 0]},
        "item:price": {"1/2": [1, 0, 0, 1], "2/2": [0, 1, 0, 0], "__unseen__": [0, 0, 1, 0]},
    }
    assert [(part.field, part.names) for part in side.parts] == [(f, list(v)) for f, v in expected.items()]
    for part in side.parts:
        found = side.x[:, part.place].toarray()
        np.testing.assert_array_equal(found, dense(part.names, expected[part.field]))
    assert side.x.dtype == np.float32
    assert side.parts[-1].place.stop == side.x.shape[1] == len(side.names) == 16


def test_genres_alone_are_what_they_were() -> None:
    x = item_features(catalogue(), ["genre"]).x
    assert (x.indptr.tolist(), x.indices.tolist()) == ([0, 2, 2, 3, 4], [0, 1, 0, 0])
    assert x.data.tobytes() == np.array([2**-0.5, 2**-0.5, 1, 1], np.float32).tobytes()
    assert item_features(catalogue(), []).x.shape == (4, 0)


def test_features_do_not_depend_on_the_order_of_the_items() -> None:
    order = [2, 0, 3, 1]
    mixed = catalogue(
        genres=[GENRES[i] for i in order], year=[YEARS[i] for i in order], attributes=[ATTRIBUTES[i] for i in order]
    )
    side, again = item_features(catalogue(), FIELDS), item_features(mixed, FIELDS)
    assert [part.names for part in again.parts] == [part.names for part in side.parts]
    np.testing.assert_array_equal(again.x.toarray(), side.x.toarray()[order])


@pytest.mark.parametrize(
    ("year", "name"), [(1995, "1995-1999"), (1999, "1995-1999"), (2000, "2000-2004"), (None, "__unseen__")]
)
def test_years_in_steps_of_five(year: int | None, name: str) -> None:
    assert year_bin(year) == name


def test_very_many_side_features_share_a_move_as_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix((rng.random((300, 60)) < 0.05).astype(np.float32))
    before, before_bias = rng.normal(size=(300, 3)).astype(np.float32), np.zeros(300, np.float32)
    found = []
    for most in (2_000, 0):
        monkeypatch.setattr(side_module, "_DENSE", most)
        moved = before + (np.arange(300) % 4 > 0)[:, None].astype(np.float32) * np.float32([1.0, -2.0, 0.0])
        parameters, side = Parameters(moved, before_bias.copy(), np.zeros(300), np.zeros(300)), no_progress(x, 3)
        share_move(side, parameters, before, before_bias)
        found.append((side.factors, parameters.item_factors))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=2e-2)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=2e-2)
    assert np.all(found[1][0][:, 2] == 0.0)
