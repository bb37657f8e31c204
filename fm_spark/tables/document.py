"""Writes docs/tables.md from the contracts: ``python -m fm_spark.tables.document docs/tables.md``, or ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from fm_spark.tables.contracts import ALL, CHECKPOINTS, ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example
from fm_spark.tables.contracts.written_by import WRITTEN_BY

ROOT = "warehouse"
_INTRODUCTION = f"""# Tables

<!-- made by `make docs` from fm_spark/tables/contracts; change it there -->

Every table is a Delta table in a folder of its own below `tables.root`, here `{ROOT}`. Any reader of Delta reads them,
with or without a JVM: the tables ask for protocol version 1 of readers. A name, a type, a meaning or a key changes by a
new version of the contract only, and then by columns that are added.

Rows of several runs lie side by side. What belongs together is one row of [`publications`](#publications): follow it
and all tables are of one run. The examples name the run `{RUN}`.

What the columns promise is checked before rows are committed, and kept by Delta against other writers: columns without
"may be null" are `NOT NULL`, "must be" is a `CHECK` constraint, keys occur once. Numbers with a fraction are finite.
`id` stands for the type of the input's identifiers, `bigint` or `string`. A score has no unit; times are UTC.

Spark SQL reads a table as ``delta.`{ROOT}/top_n` ``. The examples for pandas and DuckDB begin with

```python
import duckdb
from deltalake import DeltaTable
```
"""
_MODES = {
    "replace": "Each run replaces the content; earlier content is in earlier versions of the table.",
    "append": "Rows are only ever added.",
    "by_run": "A run replaces its own rows and touches no others.",
}


def document() -> str:
    """The page, as Markdown."""
    tables = (*ALL, CHECKPOINTS)
    names = "\n".join(f"| [`{c.name}`](#{c.name}) | {c.comment} | `{WRITTEN_BY[c.name]}` |" for c in tables)
    return "\n".join(
        [
            _INTRODUCTION,
            f"| table | what it holds | job |\n|---|---|---|\n{names}\n",
            *(_table(contract) for contract in tables),
        ]
    )


def example_of(contract: Contract) -> Example:
    """The contract's example, or its first columns, of one run where rows belong to runs."""
    if contract.example:
        return contract.example
    own = (("run_id", "=", RUN),) if contract.mode == "by_run" else ()
    columns = [c.name for c in contract.columns if c.name not in ("run_id", "model_version")]
    order = next(name for name in (*contract.order, *contract.key, columns[0]) if name != "run_id" or not columns)
    question = "The rows of one run" if own else "All rows"
    return Example(question, tuple(columns[:5]), own, order)


def queries(contract: Contract, root: str = ROOT) -> dict[str, str]:
    """The example in every language, by language: a statement for Spark SQL, Python expressions for the others."""
    example = example_of(contract)
    path = f"{root}/{contract.name}"
    return {
        "Spark SQL": example.sql(f"delta.`{path}`"),
        "pandas + deltalake": example.pandas(path),
        "DuckDB": (
            f'{contract.name} = DeltaTable("{path}").to_pyarrow_dataset()\n'
            f'duckdb.sql("{example.sql(contract.name)}").df()'
        ),
    }


def _table(contract: Contract) -> str:
    rows = "\n".join(_row(column, contract) for column in contract.columns)
    facts = [
        f"Key: {_names(contract.key)}.",
        _MODES[contract.mode],
        f"Written by `{WRITTEN_BY[contract.name]}`.",
        f"Rows lie by {_names(contract.order or contract.key)}.",
        *([f"In folders by {_names(contract.partitions)}."] if contract.partitions else []),
        *([f"Properties: {', '.join(f'`{k} = {v}`' for k, v in contract.properties)}."] if contract.properties else []),
        f"Contract version {contract.version}.",
    ]
    shown = queries(contract)
    return "\n".join(
        [
            f"## {contract.name}\n",
            f"{contract.comment}.\n",
            f"{' '.join(facts)}\n",
            f"| column | type | meaning | must be |\n|---|---|---|---|\n{rows}\n",
            f"{example_of(contract).question}:\n",
            f"```sql\n-- Spark SQL\n{shown['Spark SQL']}\n```\n",
            f"```python\n# pandas + deltalake\n{shown['pandas + deltalake']}\n```\n",
            f"```python\n# DuckDB\n{shown['DuckDB']}\n```\n",
        ]
    )


def _row(column: Column, contract: Contract) -> str:
    name = f"`{column.name}`" + (" (key)" if column.name in contract.key else "")
    since = f"; since version {column.since}" if column.since > 1 else ""
    must = [*(["may be null"] if column.nullable else []), *([column.rule] if column.rule else [])]
    type_ = "id" if column.type == ID else column.type
    return f"| {name} | `{type_}` | {_cell(column.comment)}{since} | {_cell('; '.join(must))} |"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
