"""What ``recommend`` has written, and what ``data_quality`` says about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import types as T

from fm_spark.events.quality import Finding
from fm_spark.named_lists import NamedList
from fm_spark.ranking.list_rules import ListRule
from fm_spark.tables.contracts import TOP_N
from fm_spark.tables.data_file import arrow_schema
from fm_spark.tables.store import TableStore


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


def counted(store: TableStore, version: int, run_id: str, named: Sequence[NamedList], diverse: bool) -> list[Counts]:
    """Counts the rows of a run in a version of ``top_n``, in the order of ``named``.

    Args:
        diverse: whether there was ``recommend.diversity``; without it two columns are not read.
    """
    # a text a row takes longer to read than all else: one list needs no name
    alone = named[0].name if len(named) == 1 else ""
    columns = ("rank", *(() if alone else ("list_name",)), *(("diversity_cost", "score") if diverse else ()))
    parts = store.tallied(TOP_N, partial(_sums, alone), _SUMS, version, columns, {"run_id": run_id})
    sums = parts.group_by("list_name").aggregate([(name, "sum") for name in _SUMMED])
    rows = {row["list_name"]: [row[f"{name}_sum"] for name in _SUMMED] for row in sums.to_pylist()}
    found = []
    for one in named:
        users, n, moved, costs_known, given_up, score = rows.get(one.name, [0] * 6)
        found.append(Counts(one.name, users, n, moved, given_up / max(costs_known, 1), score / max(costs_known, 1)))
    return found


_SUMMED = {
    **dict.fromkeys(("users", "rows", "moved", "costs_known"), T.LongType()),
    **dict.fromkeys(("given_up", "score"), T.DoubleType()),
}
_SUMS = T.StructType([T.StructField("list_name", T.StringType()), *starmap(T.StructField, _SUMMED.items())])


def _sums(alone: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The sums of each list, batch by batch; ``alone`` is the name of the only one, or empty."""
    for batch in batches:
        n, there = batch.num_rows, batch.schema.names
        first = batch.column("rank").to_numpy() == 1
        if alone and "diversity_cost" not in there:
            counts = {"users": np.count_nonzero(first), "rows": n}
            yield _batch([alone], [[counts.get(name, 0)] for name in _SUMMED])
            continue
        named = (pa.repeat(alone, n) if alone else batch.column("list_name")).dictionary_encode()
        names, code = named.dictionary.to_pylist(), named.indices.to_numpy()
        cost, score = (
            batch.column(name).to_numpy(zero_copy_only=False) if name in there else np.full(n, np.nan)
            for name in ("diversity_cost", "score")
        )
        known = ~np.isnan(cost)
        values = {
            "users": first,
            "rows": np.ones(n, np.bool_),
            "moved": known & (cost != 0.0),
            "costs_known": known,
            "given_up": np.where(known, cost, 0.0),
            "score": np.where(known, score, 0.0),
        }
        yield _batch(names, [np.bincount(code, values[name], len(names)) for name in _SUMMED])


def _batch(names: list[str], sums: Sequence[npt.ArrayLike]) -> pa.RecordBatch:
    types = arrow_schema(_SUMS).types
    arrays = [pa.array(names, types[0]), *map(pa.array, sums)]
    return pa.RecordBatch.from_arrays(
        [array.cast(type_) for array, type_ in zip(arrays, types, strict=True)], names=_SUMS.names
    )


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
