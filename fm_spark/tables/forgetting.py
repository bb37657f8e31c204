"""Takes persons out of every table: rows of theirs, parameters of theirs, and texts that quote them.

Which tables hold persons follows from the contracts: every one with a column ``user_id``, and the places that
:data:`QUOTED` and :data:`NAMED` name. No commit says who was forgotten: rows are found by a join, because Delta writes
the condition of a DELETE into its log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

from delta.tables import DeltaMergeBuilder
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import TableError
from fm_spark.tables.commits import FORGET
from fm_spark.tables.contracts import (
    ALL,
    CHECKPOINTS,
    DATA_QUALITY,
    FM_MODEL,
    FM_PARAMETERS,
    VOCABULARY,
    Contract,
)
from fm_spark.tables.local import Where
from fm_spark.tables.publications import publications, write_publication
from fm_spark.tables.published import Publication, newest
from fm_spark.tables.store import TableStore
from fm_spark.tables.upkeep import Upkeep

USER_ID = "user_id"
QUOTED: Mapping[str, str] = {DATA_QUALITY.name: "examples"}
"""Table -> column of texts (array<string>) that may quote a row of the input, and so name a person."""
NAMED: Mapping[str, str] = {FM_PARAMETERS.name: "user", VOCABULARY.name: "user"}
"""Table -> the value of its column ``field`` whose rows have a person's id in the column ``value``."""
WHOLE = (CHECKPOINTS.name,)
"""Tables in which a person cannot be told from others: all rows go, and an unfinished training starts anew."""


@dataclass(frozen=True)
class Removed:
    """What was (or would be) taken out of a table.

    Attributes:
        rows: rows that went, or whose texts were cut.
        version: the newest version; after a real run without the persons.
        holding: older versions that publications name and that still hold one of the persons.
    """

    contract: Contract
    rows: int
    version: int
    holding: tuple[int, ...]


@dataclass(frozen=True)
class Forgotten:
    """What became of the persons.

    Attributes:
        removed: by table, those that held one of them.
        publication: the current publication as it is now; None when nothing is published.
        stale: tables of the current publication that still name a version with the persons, because a run that is not
            published yet has replaced their content since.
        reports: names of the HTML reports that showed one of them.
    """

    removed: tuple[Removed, ...]
    publication: Publication | None
    stale: tuple[str, ...]
    reports: tuple[str, ...]


def forget(store: TableStore, users: Sequence[str], dry_run: bool = False) -> Forgotten:
    """Takes the persons out of the newest version of every table and publishes the current publication again.

    Older versions keep them until maintenance removes these; the result says which. After a crash the same call goes on
    where the last one ended.

    Raises:
        TableError: one of the persons is in no table; nothing was changed.
    """
    places = [
        Place(Upkeep(store, contract, FORGET), users)
        for contract in (*ALL, CHECKPOINTS)
        if holds_persons(contract) and store.exists(contract)
    ]
    there = publications(store)
    latest = newest(there)
    _refuse_unknown(store, users, places, latest)
    removed = [_taken_out(place, there, dry_run) for place in places]
    removed = [one for one in removed if one.rows or one.holding]
    reports = _reports(store, users, dry_run)
    if dry_run or latest is None:
        return Forgotten(tuple(removed), latest, (), reports)
    fresh, stale = _renewed(store, latest, removed)
    return Forgotten(tuple(removed), _publish_again(store, latest, fresh), stale, reports)


def holds_persons(contract: Contract) -> bool:
    """Whether rows of the table may be about one person, or quote one."""
    return USER_ID in contract.column_names or contract.name in {*QUOTED, *NAMED, *WHOLE}


@dataclass(frozen=True)
class Place:
    """A table that may hold the persons, and how they are found in it."""

    table: Upkeep
    users: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.table.contract.name

    @cached_property
    def where(self) -> Where | None:
        """What rows about the persons have in their columns; None where a text may quote a person."""
        if self.name in WHOLE or self.name in QUOTED:
            return None
        if self.name in NAMED:
            return {"field": NAMED[self.name], "value": list(self.users)}
        return {USER_ID: [user for user, _ in self._ids()]}

    def _ids(self) -> list[tuple[int | str, str]]:
        """The persons as the column user_id has them, and as given."""
        whole = isinstance(self.table.store.columns(self.table.contract)[USER_ID].dataType, T.LongType)
        return [(int(user) if whole else user, user) for user in self.users if not whole or _is_whole(user)]

    def count(self) -> int:
        """Rows of the newest version about the persons."""
        if self.where is not None:
            return self.table.store.count(self.table.contract, None, self.where)
        return self.quoting().count()

    def holds(self, version: int) -> bool:
        """Whether a version has rows about the persons; false also where it is gone already."""
        if self.name in WHOLE:
            return False
        try:
            if self.where is None:
                return not self.quoting(version).isEmpty()
            return self.table.store.count(self.table.contract, version, self.where) > 0
        except TableError:
            return False

    def quoting(self, version: int | None = None) -> DataFrame:
        """The rows of a version (None = the newest) that quote one of the persons; of a table that goes whole, all."""
        rows = self.table.store.read(self.table.contract, version)
        return rows if self.name in WHOLE else rows.where(F.exists(QUOTED[self.name], _names(self.users)))

    def persons(self) -> DataFrame:
        """The persons: ``text``, and ``user_id`` of the table's own type where it has that column."""
        spark = self.table.store.spark
        if self.name in NAMED:
            return spark.createDataFrame([(user,) for user in self.users], "text string")
        kind = self.table.store.columns(self.table.contract)[USER_ID].dataType.simpleString()
        return spark.createDataFrame(self._ids(), f"{USER_ID} {kind}, text string")

    def names(self, version: int | None = None) -> set[str]:
        """Which of the persons a version knows; a number that a quote happens to hold is no person."""
        if self.where is None:
            return set()
        if self.name in NAMED:
            found = self.table.store.rows(self.table.contract, version, ("value",), self.where)
            return set(found["value"].to_pylist())
        known = self.table.store.rows(self.table.contract, version, (USER_ID,), self.where)
        there = set(known[USER_ID].to_pylist())
        return {text for user, text in self._ids() if user in there}

    def take_out(self) -> None:
        """Removes the persons from the newest version, in one commit that does not say who they are."""
        if self.name in WHOLE:
            self.table.delete(F.lit(True))
            return
        table = self.table
        with table.committing():
            if self.name in QUOTED:
                same = " AND ".join(f"t.`{name}` = p.`{name}`" for name in table.contract.key)
                cut: dict[str, str | Column] = {QUOTED[self.name]: F.col(f"p.{QUOTED[self.name]}")}
                merge = table.delta.alias("t").merge(self._without_quotes().alias("p"), same)
                merge.whenMatchedUpdate(set=cut).execute()
            elif self.name == VOCABULARY.name:
                # an index means the same in every model for ever: the row stays, the name goes
                nobody: dict[str, str | Column] = {"value": F.concat(F.lit("__forgotten__"), F.col("t.feature"))}
                self._merge().whenMatchedUpdate(set=nobody).execute()
            else:
                self._merge().whenMatchedDelete().execute()

    def _merge(self) -> DeltaMergeBuilder:
        same = f"t.{USER_ID} = p.{USER_ID}"
        if self.name in NAMED:
            same = f"t.field = '{NAMED[self.name]}' AND t.value = p.text"
        return self.table.delta.alias("t").merge(self.persons().alias("p"), same)

    def _without_quotes(self) -> DataFrame:
        """Key and texts of the rows that quote one of the persons, without these texts."""
        column, named = QUOTED[self.name], _names(self.users)
        return self.quoting().select(
            *self.table.contract.key, F.filter(column, lambda text: ~named(text)).alias(column)
        )


def _taken_out(place: Place, there: Sequence[Publication], dry_run: bool) -> Removed:
    store, contract = place.table.store, place.table.contract
    rows = place.count()
    before = store.version(contract)
    holding = [version for version in _named(contract, there) if version != before and place.holds(version)]
    if rows and before in _named(contract, there):
        holding.append(before)
    if rows and not dry_run:
        place.take_out()
    return Removed(contract, rows, store.version(contract), tuple(sorted(holding)))


def _named(contract: Contract, there: Sequence[Publication]) -> set[int]:
    """The versions of a table that publications name."""
    maps = [versions for one in there for versions in (one.tables, one.input_versions)]
    return {versions[contract.name] for versions in maps if contract.name in versions}


def _refuse_unknown(
    store: TableStore, users: Sequence[str], places: Sequence[Place], latest: Publication | None
) -> None:
    known: set[str] = set()
    for place in places:
        known |= place.names()
        version = latest.tables.get(place.name) if latest else None
        if version is not None and not known.issuperset(users):
            known |= place.names(version)  # a call that was cut short has not published yet
    unknown = [user for user in users if user not in known]
    if unknown:
        raise TableError(
            f"no table under {store.root} knows user {', '.join(unknown)}; nothing was changed. Give ids as they are "
            "in the input; older versions of the tables may still hold somebody who was forgotten before, until "
            "./spark-submit.sh maintain removes them"
        )


def _renewed(
    store: TableStore, latest: Publication, removed: Sequence[Removed]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The versions that replace those of the current publication, and the tables that have none to offer.

    A table that each run replaces may have moved on to a run that is not published: its newest version then says
    nothing of the published run.
    """
    fresh, stale = {}, []
    begins = {one.contract.name: _content_begins(store, one.contract) for one in removed}
    for one in removed:
        name = one.contract.name
        if name in latest.tables and latest.tables[name] >= begins[name]:
            fresh[name] = one.version
        elif name in latest.tables:
            stale.append(name)
    _renew_models(store, {one.contract.name: one.version for one in removed}, begins)
    of_models = store.version_of_run(FM_MODEL, latest.run_id)
    if FM_MODEL.name in latest.tables and of_models is not None:
        fresh[FM_MODEL.name] = of_models
    return fresh, tuple(stale)


def _content_begins(store: TableStore, contract: Contract) -> int:
    """The oldest version that says the same as the newest, persons apart; 0 where runs have rows of their own."""
    if contract.mode == "by_run":
        return 0
    return next((commit.version for commit in store.commits(contract) if commit.run_id), 0)


def _renew_models(store: TableStore, versions: Mapping[str, int], begins: Mapping[str, int]) -> None:
    """Has the models name the new versions of what they were trained on: a job that goes on with one reads these."""
    rows = store.read(FM_MODEL).select("model_version", "input_versions").collect()
    changed = []
    for row in rows:
        inputs: dict[str, int] = row["input_versions"]
        new = {name: versions[name] if name in versions and v >= begins[name] else v for name, v in inputs.items()}
        if new != inputs:
            changed.append((row["model_version"], new))
    if not changed:
        return
    source = store.spark.createDataFrame(changed, "model_version string, input_versions map<string,bigint>")
    table = Upkeep(store, FM_MODEL, FORGET)
    with table.committing():
        merge = table.delta.alias("t").merge(source.alias("p"), "t.model_version = p.model_version")
        merge.whenMatchedUpdate(set={"input_versions": F.col("p.input_versions")}).execute()


def _publish_again(store: TableStore, latest: Publication, fresh: Mapping[str, int]) -> Publication:
    inputs = {name: fresh.get(name, version) for name, version in latest.input_versions.items()}
    made = replace(latest, tables={**latest.tables, **fresh}, input_versions=inputs)
    if made != latest:
        write_publication(store, made)
    return made


def _reports(store: TableStore, users: Sequence[str], dry_run: bool) -> tuple[str, ...]:
    """The HTML reports that show one of the persons; they are deleted, ``report`` makes new ones."""
    folder = store.local_root / "reports" if store.local_root else None
    shown = re.compile("|".join(rf"User {re.escape(escape(user))} <" for user in users))
    found = [file for file in sorted(folder.glob("*.html")) if shown.search(file.read_text("utf-8"))] if folder else []
    for file in found:
        if not dry_run:
            file.unlink()
    return tuple(file.name for file in found)


def _names(users: Sequence[str]) -> Callable[[Column], Column]:
    """Whether a text names one of the persons: the id as a word, not as a part of another word or number."""
    words = "|".join(re.escape(user) for user in users)
    return lambda text: text.rlike(rf"(?<![\w.-])(?:{words})(?!\w|[.-]\w)")


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,18}", text) is not None
