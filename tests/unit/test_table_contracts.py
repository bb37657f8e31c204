"""The contracts of the tables: what they declare fits together, and the documentation says what they say."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import pytest

from fm_spark.tables import contracts as C
from fm_spark.tables.contracts import check
from fm_spark.tables.contracts.written_by import WRITTEN_BY
from fm_spark.tables.document import document, example_of

EVERY = (*C.ALL, C.CHECKPOINTS)
ROOT = Path(__file__).parents[2]


def test_the_documentation_is_what_the_contracts_say() -> None:
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert page == document(), "docs/tables.md is stale: run make docs"
    assert all(f"\n## {contract.name}\n" in page for contract in EVERY)
    assert all(f"| `{c.name}`" in page for contract in EVERY for c in contract.columns)


@pytest.mark.parametrize("contract", EVERY, ids=lambda contract: contract.name)
def test_a_contract_is_whole(contract: C.Contract) -> None:
    names = contract.column_names
    columns = {column.name: column for column in contract.columns}
    assert len(columns) == len(names)
    assert {*contract.key, *contract.order, *contract.partitions} <= set(names)
    assert not any(columns[name].nullable for name in contract.key)
    assert "run_id" in names
    assert contract.name in WRITTEN_BY
    assert all(column.comment for column in contract.columns)
    example = example_of(contract)
    assert {*example.columns, example.order, *(name for name, _, _ in example.where)} <= set(names)


def test_numbers_with_a_fraction_are_finite_unless_bounds_say_it() -> None:
    for contract in EVERY:
        for column in contract.columns:
            if column.type in ("double", "float", "array<float>", "array<double>"):
                assert column.condition, (contract.name, column.name)


def test_the_version_of_a_contract_is_that_of_its_newest_column() -> None:
    new = C.Column("new", "int", "new", since=3)
    assert C.TOP_N.version == max(column.since for column in C.TOP_N.columns)
    assert replace(C.TOP_N, columns=(*C.TOP_N.columns, new)).version == 3


def test_checks_say_what_they_mean() -> None:
    assert doctest.testmod(check).failed == 0
    assert (
        C.Check(at_least=0, at_most=1).condition("p", "array<double>") == "array_min(`p`) >= 0 AND array_max(`p`) <= 1"
    )
    assert C.Check(one_of=("it's",)).condition("p", "string") == r"`p` IN ('it\'s')"
    nested = C.Check(fields=(("share", C.Check(at_least=0)),))
    assert nested.words("array<struct<share:double>>") == "share finite and >= 0"
