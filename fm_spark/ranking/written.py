"""What ``recommend`` has written, and what ``data_quality`` says about it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from fm_spark.events.quality import Finding
from fm_spark.named_lists import NamedList
from fm_spark.ranking.list_rules import ListRule


@dataclass(frozen=True)
class Counts:
    """One list as it was written.

    Attributes:
        users: users with at least one item in it.
        moved: rows with another score than at this rank without diversity; given_up: that difference, mean over all
            rows; score: mean over all rows. All 0 without ``recommend.diversity``.
    """

    name: str
    users: int
    rows: int
    moved: int
    given_up: float
    score: float


def counted(written: DataFrame, named: Sequence[NamedList], diverse: bool) -> list[Counts]:
    """Counts the rows of a run in ``top_n``, in the order of ``named``.

    Args:
        diverse: whether there was ``recommend.diversity``; without it two columns are not read.
    """
    cost = F.col("diversity_cost") if diverse else F.lit(None).cast("double")
    rows = (
        written.groupBy("list_name")
        .agg(
            F.count_if(F.col("rank") == 1).alias("users"),
            F.count(F.lit(1)).alias("rows"),
            F.count_if(F.coalesce(cost, F.lit(0.0)) != 0.0).alias("moved"),
            F.coalesce(F.mean(cost), F.lit(0.0)).alias("given_up"),
            F.coalesce(F.mean(F.when(cost.isNotNull(), F.col("score"))), F.lit(0.0)).alias("score"),
        )
        .collect()
    )
    by_name = {row["list_name"]: Counts(*row) for row in rows}
    return [by_name.get(one.name, Counts(one.name, 0, 0, 0, 0.0, 0.0)) for one in named]


def empty_lists(named: Sequence[NamedList], rules: Sequence[ListRule], made: Sequence[Counts]) -> list[Finding]:
    """What to say about the lists that nobody has, for want of items.

    Args:
        named, rules, made: the same lists in the same order.
    """
    found = []
    for one, rule, counts in zip(named, rules, made, strict=True):
        if counts.users == 0:
            left = _left_over(rule)
            who = "for any user" if left else "at all"
            detail = f"list {one.name} is empty: its rule ({one.rule or 'every item'}) leaves no item {who}"
            found.append(Finding(f"empty_list:{one.name}", left, "counted", detail))
    return found


def costs(made: Sequence[Counts]) -> list[Finding]:
    """What being diverse has cost the lists, in score."""
    return [
        Finding(
            f"diversity_cost:{one.name}",
            one.moved,
            "counted",
            f"rows of list {one.name} with another item than the score alone would put there; the mean score of all "
            f"its rows is {one.score:.6g}, {one.given_up:.6g} less than without recommend.diversity",
        )
        for one in made
        if one.moved
    ]


def _left_over(rule: ListRule) -> int:
    """The items that pass for some user."""
    asked = rule.rule.of_user
    answers = itertools.product((False, True), repeat=len(asked))
    masks = [mask for answer in answers for mask in rule.rule.states(dict(zip(asked, answer, strict=True)))]
    return int(np.count_nonzero(np.logical_or.reduce(masks) & rule.enough))
