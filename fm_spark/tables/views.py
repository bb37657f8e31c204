"""Views for Spark SQL: the tables of one publication, each at the version that the publication names."""

from __future__ import annotations

import re

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import TableError
from fm_spark.tables.contracts import ALL, TOP_N, Contract
from fm_spark.tables.publications import published
from fm_spark.tables.published import Publication, own_rows
from fm_spark.tables.store import TableStore

PREFIX = "current_"
NESTED = f"{PREFIX}top_n_nested"
"""One row per user and list: user_id, list_name, items (rank, item_id, title, score, source; best first)."""

_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def create_views(spark: SparkSession, root: str, publication: str = "latest", database: str | None = None) -> list[str]:
    """Makes a view ``current_<table>`` of every table of a publication, and ``current_top_n_nested``.

    A view keeps showing the publication that it was made of; make the views again to see a newer one. Temporary views
    belong to the session; those of a database stay, for every session whose catalogue knows it.

    Args:
        publication: ``latest`` or a run id.
        database: where the views are made, in place of existing ones; None makes temporary ones.

    Returns:
        Names of the views, quoted where they belong to a database.

    Raises:
        TableError: nothing is published, or the run is not; the name of the database is not one.

    Example:
        >>> create_views(spark, "warehouse")                                                     # doctest: +SKIP
        >>> spark.sql("SELECT title FROM current_top_n WHERE user_id = 1 ORDER BY rank").show()  # doctest: +SKIP
    """
    if database is not None and not _DATABASE.fullmatch(database):
        raise TableError(f"database {database!r} is not a name of letters, digits and _; give one that is")
    store = TableStore(spark, root)
    chosen = published(store, "" if publication == "latest" else publication)
    made = []
    for contract in ALL:
        if contract.name not in chosen.tables:
            _drop(spark, contract, database)  # what an earlier publication left
            continue
        made.append(_view(store, chosen, contract, database))
        if contract is TOP_N:
            made.append(_nested_view(store, database))
    return made


def _view(store: TableStore, chosen: Publication, contract: Contract, database: str | None) -> str:
    """Makes the view of a table; returns its name."""
    version, own = chosen.tables[contract.name], own_rows(chosen, contract)
    if database is None:
        rows = store.read(contract, version)
        for column, value in own.items():
            rows = rows.where(F.col(column) == F.lit(value))
        rows.createOrReplaceTempView(PREFIX + contract.name)
        return PREFIX + contract.name
    # a view that stays is text; the values are those of the publication
    name = f"`{database}`.`{PREFIX}{contract.name}`"
    path = store.path(contract).replace("`", "``")
    where = " AND ".join(f"`{column}` = {_literal(value)}" for column, value in own.items()) or "true"
    store.spark.sql(
        f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM delta.`{path}` VERSION AS OF {version:d} WHERE {where}"
    )
    return name


def _drop(spark: SparkSession, contract: Contract, database: str | None) -> None:
    if database is None:
        spark.catalog.dropTempView(PREFIX + contract.name)
    else:
        spark.sql(f"DROP VIEW IF EXISTS `{database}`.`{PREFIX}{contract.name}`")


def _nested_view(store: TableStore, database: str | None) -> str:
    kind, place = ("TEMPORARY VIEW", "") if database is None else ("VIEW", f"`{database}`.")
    store.spark.sql(
        f"CREATE OR REPLACE {kind} {place}{NESTED} AS SELECT user_id, list_name, "
        "array_sort(collect_list(struct(rank, item_id, title, score, source))) AS items "
        f"FROM {place}{PREFIX}{TOP_N.name} GROUP BY user_id, list_name"
    )
    return f"{place}{NESTED}"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
