"""The queries of docs/tables.md: each runs as it stands there, and the three languages answer the same."""

from __future__ import annotations

import ast
from typing import Any

import duckdb
import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from small_run import JOB_TABLES, copy_run

from fm_spark.tables import contracts as C
from fm_spark.tables.contracts.example import RUN
from fm_spark.tables.document import ROOT, document, example_of
from fm_spark.tables.store import TableStore

TABLES = [contract for tables in JOB_TABLES.values() for contract in tables]


@pytest.fixture(scope="module")
def page(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page, about the tables of a small run instead of the documented ones."""
    root = tmp_path_factory.mktemp("documented")
    copy_run(TableStore(spark, str(root)))
    return document().replace(f"{ROOT}/", f"{root}/").replace(RUN, "r1")


def code_of(page: str, contract: C.Contract, language: str) -> str:
    section = page.split(f"\n## {contract.name}\n")[1].split("\n## ")[0]
    return section.split(f" {language}\n", 1)[1].split("```", 1)[0]


def run_python(code: str) -> pd.DataFrame:
    """The value of the last expression, as a notebook shows it."""
    names: dict[str, Any] = {"duckdb": duckdb, "DeltaTable": DeltaTable}
    *before, last = ast.parse(code).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(before, []), "docs/tables.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "docs/tables.md", "eval"), names)


@pytest.mark.parametrize("contract", TABLES, ids=lambda contract: contract.name)
def test_every_example_answers_in_three_languages(spark: SparkSession, page: str, contract: C.Contract) -> None:
    columns = list(example_of(contract).columns)
    in_spark = spark.sql(code_of(page, contract, "Spark SQL")).toPandas()
    in_pandas = run_python(code_of(page, contract, "pandas + deltalake"))[columns]
    in_duckdb = run_python(code_of(page, contract, "DuckDB"))
    assert len(in_spark)
    assert said(in_pandas) == said(in_spark)
    assert said(in_duckdb) == said(in_spark)


def said(frame: pd.DataFrame) -> list[list[object]]:
    """The values as text, but numbers as numbers and null as None: a null makes whole numbers fractions."""
    return [[_said(value) for value in row] for row in frame.astype(object).to_numpy().tolist()]


def _said(value: object) -> object:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return float(value) if pd.api.types.is_number(value) else str(value)
