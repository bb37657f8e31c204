"""Filters: the grammar, what they say about items, and the lists that follow from them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fm_spark.config import load_config
from fm_spark.core.item_scores import prepare_items
from fm_spark.core.sequences import Sequences
from fm_spark.errors import ConfigError
from fm_spark.events.catalogue import Catalogue
from fm_spark.filter_grammar import Condition, Every, Filter, Not, Some, parse_filter
from fm_spark.named_lists import NamedList, named_lists
from fm_spark.ranking.filters import item_columns, item_mask, item_rule
from fm_spark.ranking.list_rules import ListMaker, list_rules
from fm_spark.ranking.written import Counts, empty_lists

N_ITEMS = 80
TITLES = ["Alien", "It's a Gift", "Café", "Alien 3"]
TAGS = [["slow"], [], ["slow", "dark"], []]


def catalogue(ids: list[Any] | None = None) -> Catalogue:
    places = np.arange(4, dtype=np.int32)
    attributes = [{"brand": ["A"], "kinds": ["x", "y"]}, {"brand": ["__unseen__"]}, {"brand": ["B"], "kinds": []}, {}]
    return Catalogue(
        np.array(ids or [10, 20, 30, 40]),
        np.array(TITLES, object),
        [["Horror", "Sci-Fi"], ["Comedy"], [], ["Horror"]],
        np.array([500, 20, 7, 50]),
        places,
        places,
        [1979, 1934, None, 1992],
        attributes,
    )


def passing(text: str, ids: list[Any] | None = None) -> list[int]:
    tree = parse_filter(text, "recommend.lists.x")
    return np.flatnonzero(item_mask(tree, item_columns(catalogue(ids), TAGS), "recommend.lists.x")).tolist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("genres contains 'Horror'", [0, 3]),
        ('NOT genres CONTAINS "Horror" and count >= 7', [1, 2]),
        ("genres in ('Comedy', 'Sci-Fi')", [0, 1]),
        ("genres is null", [2]),
        ("year >= 1979", [0, 3]),
        ("not year >= 1979", [1, 2]),
        ("year is not null and year != 1992", [0, 1]),
        ("year = 1934 OR year == 1992 AND count < 50", [1]),
        ("(year = 1934 OR year == 1992) AND count <= 50", [1, 3]),
        ("year not in (1979, 1934.0)", [2, 3]),
        ("title contains 'Alien' and title <> 'Alien'", [3]),
        ("title = 'It''s a Gift'", [1]),
        ('title in ("Café")', [2]),
        ("title < 'B'", [0, 3]),
        ("tags contains 'slow' AND NOT tags contains 'dark'", [0]),
        ("item_id in (10, 40)", [0, 3]),
        ("`brand` = 'A' or kinds contains 'y'", [0]),
        ("brand is null", [1, 3]),
        ("count > 1e2", [0]),
        ("title contains '\"; DROP TABLE items; --'", []),
    ],
)
def test_a_filter_says_which_items_pass(text: str, wanted: list[int]) -> None:
    assert passing(text) == wanted


def test_ids_of_text_are_compared_as_text() -> None:
    assert passing("item_id = 'b' OR item_id > 'c'", list("abcd")) == [1, 3]


def test_and_binds_more_than_or_and_not_most() -> None:
    a, b, c = (Condition(name, "is") for name in "abc")
    assert parse_filter("NOT a AND b OR c", "k") == Some((Every((Not(a), b)), c))
    assert parse_filter("a AND NOT (b OR c)", "k") == Every((a, Not(Some((b, c)))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the name of a column, found the end"),
        ("year >=", "expected a number or text in quotes, found the end after 'year >='"),
        ("year >= 2010 year", "expected AND, OR or the end, found 'year'"),
        ("title = 'x", "a quote that is not closed"),
        ("count > 3; DROP TABLE items", "a character that has no meaning, found '; DROP TABLE items'"),
        ("year in ()", "expected a number or text in quotes"),
        ("(year = 1", "expected a closing parenthesis"),
        ("year not 3", "expected IN or CONTAINS after NOT"),
        ("NOT " * 200 + "seen", "more than 100 levels"),
        ("genre = 'Horror'", r"no column genre; did you mean genres\?; a filter can name item_id, title, genres, year"),
        ("genres = 'Horror'", r"genres holds names, which = 'Horror' does not fit; use CONTAINS, IN"),
        ("year contains '19'", "year holds number, which CONTAINS '19' does not fit"),
        ("year = '1979'", "use comparisons, IN and IS NULL with numbers"),
        ("title > 3", "title holds text"),
        ("year", "year holds number, which its name alone does not fit"),
        ("seen", "no column seen"),
    ],
)
def test_what_is_no_filter_is_refused_with_the_place_or_the_cure(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        passing(text)


def test_tests_of_the_history_fit_users() -> None:
    columns = item_columns(catalogue(), TAGS)
    for text, said in [
        ("seen = 1", "use its name alone"),
        ("seen_count", "holds number"),
        ("liked_count > 'x'", "number"),
    ]:
        with pytest.raises(ConfigError, match=said):
            item_rule(parse_filter(text, "k"), columns, "k")


def lists_of(*words: str) -> tuple[NamedList, ...]:
    return named_lists(load_config(overrides=words).recommend)


def test_lists_are_given_as_filters_or_tables_with_common_keys() -> None:
    comedies = "comedies = \"genres contains 'Comedy'\""
    table = f"recommend.lists={{{comedies}, fresh = {{filter = 'year > 2000', n = 5}}, min_ratings = 50}}"
    default, funny, fresh, again = lists_of(table, "recommend.lists.again=seen AND liked_count > 1", "recommend.n=7")
    assert (default.name, default.tree, default.n, default.unseen_only, default.min_ratings) == (
        "default",
        None,
        7,
        True,
        0,
    )
    assert (funny.n, funny.min_ratings, funny.unseen_only) == (7, 50, True)
    assert (fresh.n, fresh.rule) == (5, "(year > 2000) AND (count >= 50)")
    assert not again.unseen_only  # it would hide all that it asks for
    assert [one.unseen_only for one in lists_of("recommend.exclude_seen=false", table)] == [False, False, False]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("3", "recommend.lists = 3 has the wrong type; expected a table"),
        ("{'a b' = 'seen'}", "'a b' is no name of a list"),
        ("{default = 'seen'}", "'default' is taken"),
        ("{x = {fliter = 'seen'}}", r"unknown key recommend.lists.x.fliter; did you mean filter\?"),
        ("{x = {n = 0}}", "recommend.lists.x.n = 0 is out of range"),
        ("{n = 4}", "names no list"),
        ("{x = 4}", "recommend.lists.x = 4 must be a filter"),
        ("{x = 'year >'}", "recommend.lists.x = 'year >' is not a filter"),
    ],
)
def test_lists_that_are_none_are_refused_with_the_configuration(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(overrides=[f"recommend.lists={value}"])


def slow_passes(tree: Filter | None, item: int, facts: dict[str, Any]) -> bool:
    """The filter for one user and one item, by the definition."""
    if tree is None:
        return True
    if isinstance(tree, Not):
        return not slow_passes(tree.of, item, facts)
    if isinstance(tree, Every | Some):
        return (all if isinstance(tree, Every) else any)(slow_passes(part, item, facts) for part in tree.parts)
    if tree.test == "is":
        return item in facts[tree.column]
    value = facts.get(tree.column, item)
    return bool({">": value > tree.values[0], "in": value in tree.values, "<": value < tree.values[0]}[tree.test])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "item_id < 60",
        "item_id < 20",
        "seen",
        "NOT liked",
        "liked OR item_id > 70",
        "item_id < 15 OR seen AND NOT liked",
        "seen_count > 12 AND item_id < 40 OR liked_count > 6 AND NOT seen",
        "item_id > 1000",
    ],
)
@pytest.mark.parametrize("unseen_only", [False, True])
def test_lists_equal_sorting_the_items_that_pass(text: str, unseen_only: bool) -> None:
    rng = np.random.default_rng(3)
    block = random_block(rng)
    factors, bias = (rng.integers(-2, 3, shape).astype(np.float32) for shape in ((N_ITEMS, 4), N_ITEMS))
    queries = rng.integers(-2, 3, (block.n_users, 4)).astype(np.float32)
    count = rng.integers(0, 9, N_ITEMS)
    one = NamedList("x", text, parse_filter(text, "k") if text else None, 10, unseen_only, 2)
    (rule,) = list_rules([one], numbered(count), [[]] * N_ITEMS)
    made = ListMaker(prepare_items(factors, bias)).lists(rule, block, queries)
    scores = queries.astype(np.float64) @ factors.T.astype(np.float64) + bias
    for user in range(block.n_users):
        own = slice(block.ptr[user], block.ptr[user + 1])
        item, liked = block.item[own], block.liked[own] > 0
        seen = set(item[item >= 0].tolist())
        facts = {
            "seen": seen,
            "liked": set(item[liked & (item >= 0)].tolist()),
            "seen_count": len(item),
            "liked_count": int(liked.sum()),
        }
        left = [i for i in range(N_ITEMS) if count[i] >= 2 and slow_passes(one.tree, i, facts)]
        left = [i for i in left if not (unseen_only and i in seen)]
        wanted = sorted(left, key=lambda i: (-scores[user, i], i))[:10]
        assert made.item[user, : made.size[user]].tolist() == wanted
        np.testing.assert_allclose(made.score[user, : made.size[user]], scores[user, wanted])
    found = empty_lists([one], [rule], [Counts("x", int((made.size > 0).sum()), 0, 0, 0.0, 0.0)])
    left_over = {("item_id > 1000", False): [0], ("item_id > 1000", True): [0], ("seen", True): [(count >= 2).sum()]}
    assert [f.rows for f in found] == left_over.get((text, unseen_only), [])


def random_block(rng: np.random.Generator) -> Sequences:
    """Thirty users; every seventh event is on an item that the catalogue lacks."""
    length = rng.integers(0, 25, 30)
    item = np.concatenate([rng.choice(N_ITEMS, size, replace=False) for size in length]).astype(np.int32)
    item[::7] = -1
    n = len(item)
    liked = rng.integers(0, 2, n).astype(np.uint8)
    ptr = np.concatenate([[0], np.cumsum(length)])
    return Sequences(np.arange(30), ptr, item, liked, np.ones(n, np.float32), np.zeros(n, np.uint8))


def numbered(count: npt.NDArray[np.int64]) -> Catalogue:
    """Items whose ids are their places."""
    n, places = len(count), np.arange(len(count), dtype=np.int32)
    ids, titles = places.astype(np.int64), places.astype(object)
    return Catalogue(ids, titles, [[]] * n, count, places, places, [None] * n, [{}] * n)


def test_states_follow_the_definition_for_every_answer() -> None:
    text = "liked_count > 3 AND (seen OR count > 30) AND NOT liked"
    rule = item_rule(
        parse_filter(text, "k"),
        item_columns(catalogue(), TAGS),
        "k",
    )
    (test,) = rule.of_user
    assert rule.of_pair
    many = np.array([500, 20, 7, 50]) > 30
    for enough, (state, wanted) in itertools.product((False, True), enumerate((many, many | True, many & False))):
        assert (rule.states({test: enough})[state] == (wanted & enough)).all()
