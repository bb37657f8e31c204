"""What similar and audience ask for: who can be a neighbour, which items and segments, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from fm_spark.config import load_config
from fm_spark.config_sections import AudienceConfig, SimilarConfig
from fm_spark.core.neighbours import name_sets
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.audience import Asked, asked_for, empty_audiences
from fm_spark.ranking.similar import _lists, _Shared, around_items

GENRES = [["Drama"], ["Drama", "War"], ["Comedy"], ["Drama"]]
COUNT = np.array([9, 5, 7, 0])
FACTORS = np.array([[2, 0], [2, 2], [0, 1], [9, -9]], np.float32)


def catalogue(text_ids: bool = False) -> Catalogue:
    place = np.arange(4, dtype=np.int32)
    ids = np.array([f"i{i}" for i in place], object) if text_ids else 10 + place.astype(np.int64)
    titles = np.array([f"Film {i}" for i in place], object)
    return Catalogue(ids, titles, GENRES, COUNT, place, place, [None, 1990, 2000, 2010], [{}] * 4)


def similar(**changes: object) -> SimilarConfig:
    return replace(load_config().similar, **changes)  # type: ignore[arg-type]


def audience(**changes: object) -> AudienceConfig:
    return replace(load_config().audience, **changes)  # type: ignore[arg-type]


def test_rare_items_are_no_neighbours_and_ask_by_what_their_genres_suggest() -> None:
    around = around_items(FACTORS, catalogue(), similar(min_count=5, n=2))
    assert around.members.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(around.vectors[:3], FACTORS[:3])
    drama = around.vectors[3]  # no events: nothing of its own vector is left
    assert drama[0] > 0
    assert drama[0] > drama[1]


def test_without_a_floor_every_item_has_its_own_vector() -> None:
    around = around_items(FACTORS, catalogue(), similar(min_count=0))
    assert around.members.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(around.vectors, FACTORS)


def test_lists_that_end_early_and_silent_items_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        around_items(FACTORS * [[1], [1], [0], [1]], catalogue(), similar(min_count=0, n=3))
    assert "similar.n = 3 is more than the 2 other items that can be neighbours (of 4" in caplog.text
    assert "1 items have a vector of zeros" in caplog.text


def test_a_floor_that_leaves_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_count = 99 leaves no item .* one has 9 events; give a smaller"):
        around_items(FACTORS, catalogue(), similar(min_count=99))


@pytest.mark.parametrize("given", [[12, 10, 12], ["12", "10"]])
def test_items_and_segments_are_asked_for_once_and_in_order(given: list[int] | list[str]) -> None:
    segments = {"new": "year >= 2000 OR tags contains 'slow'", "none": "genres contains 'Western'"}
    asked = asked_for(audience(items=given, segments=segments), catalogue(), [["slow"], [], [], []])
    assert [(one.kind, one.target, one.title, one.items.tolist()) for one in asked] == [
        ("item", "12", "Film 2", [2]),
        ("item", "10", "Film 0", [0]),
        ("segment", "new", "year >= 2000 OR tags contains 'slow'", [0, 2, 3]),
        ("segment", "none", "genres contains 'Western'", []),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"audience.items = \[\] and audience.segments = {} ask for nothing; give item ids"),
        ({"items": ["i1", *"abcdefg"]}, r"names 7 of 8 items .* catalogue: a, b, c, d, e and 2 more; give values of"),
        ({"items": ["12"]}, r"names 1 of 1 items .* catalogue: 12; give values of item_id in the table items"),
        ({"segments": {"old": "decade < 1950"}}, r"audience.segments.old: no column decade"),
        ({"segments": {"mine": "NOT seen"}}, r"audience.segments.mine: no column seen"),
    ],
)
def test_what_cannot_be_asked_for_is_one_message(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked_for(audience(**changes), catalogue(text_ids=True), [[]] * 4)


def test_who_has_no_users_is_said_with_the_reason() -> None:
    asked = [
        Asked("item", "10", "Film 0", np.array([0])),
        Asked("segment", "none", "year > 3000", np.array([], np.int64)),
        Asked("segment", "all", "year < 3000", np.arange(4)),
    ]
    found = empty_audiences(asked, {("item", "10"): 0, ("segment", "none"): 0, ("segment", "all"): 3})
    assert [(one.check, one.rows, one.detail) for one in found] == [
        ("empty_audience:item:10", 1, "item 10 (Film 0) has no users: every user has seen all of it"),
        ("empty_audience:segment:none", 0, "segment none (year > 3000) has no users: no item passes its filter"),
    ]


def test_a_task_makes_its_rows_in_the_order_of_the_table() -> None:
    of = catalogue(text_ids=True)
    config = similar(min_count=5, n=2)
    shared = _Shared(
        around_items(FACTORS, of, config), name_sets(GENRES), COUNT < 5, pa.array(of.item_id), pa.array(of.title)
    )
    names = ["item_id", "title", "rank", "similar_item_id", "similar_title", "score", "shares_genre", "source"]
    batches = [pa.RecordBatch.from_arrays([pa.array(part)], names=["id"]) for part in ([0, 1], [2], [3])]
    made = pa.Table.from_batches(_lists(SimpleNamespace(value=shared), config.n, names, batches)).to_pandas()
    keys = list(zip(made["item_id"], made["rank"], strict=True))
    assert keys == sorted(keys)
    assert keys == [(f"i{item}", rank) for item in range(4) for rank in (1, 2)]
    assert made["source"].tolist() == ["model"] * 6 + ["blended"] * 2
    assert made["shares_genre"].tolist() == [True, False, True, False, False, False, True, True]
