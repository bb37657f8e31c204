"""The table store: what it commits, what it refuses, and that readers without a JVM get the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from small_run import START, all_rows, copy_run, frame, schema

from fm_spark.errors import TableError
from fm_spark.parallel import side_by_side
from fm_spark.tables import contracts as C
from fm_spark.tables.driver_rows import fulfilled
from fm_spark.tables.evolution import constraint
from fm_spark.tables.in_order import ascending
from fm_spark.tables.store import TableStore


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> TableStore:
    return TableStore(spark, str(tmp_path / "my tables"))


def lists(spark: SparkSession, run_id: str = "r1", users: range = range(3), score: str = "0.5") -> DataFrame:
    """A top_n of one item a user."""
    return spark.range(users.start, users.stop).selectExpr(
        f"'{run_id}' AS run_id", "'m' AS model_version", "'default' AS list_name", "id AS user_id", "1 AS rank",
        "id + 100 AS item_id", "'a title' AS title", f"CAST({score} AS double) AS score", "'model' AS source",
        "CAST(NULL AS array<struct<kind:string,item_id:string,value:double>>) AS contributions",
        "CAST(NULL AS string) AS because", "CAST(NULL AS double) AS diversity_cost",
    )  # fmt: skip


@pytest.fixture(scope="module")
def good(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """A store with one good version of top_n, which refused rows leave as it is."""
    store = TableStore(spark, str(tmp_path_factory.mktemp("good")))
    store.write(lists(spark), C.TOP_N, "r1")
    return store


def published_row(contract: C.Contract) -> list[dict[str, Any]]:
    if contract is not C.PUBLICATIONS:
        return []
    values = {"tables": {"events": 1}, "metrics": {"fm.mrr": 0.5}, "published_at": START, "input_versions": {}}
    gates = [{"gate": "users", "value": 1.0, "limit": 0.5, "passed": True}]
    own = {"publication": 1, "run_id": "r1", "model_version": "m", "rolled_back_from": None}
    return [{**own, **values, "gates": gates}]


def vocabulary(spark: SparkSession, rows: list[tuple[str, str, int]], run_id: str) -> DataFrame:
    return spark.createDataFrame(rows, "field string, value string, feature int").withColumn("run_id", F.lit(run_id))


@pytest.fixture(scope="module")
def run_store(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """The tables of one whole run."""
    store = TableStore(spark, str(tmp_path_factory.mktemp("run")))
    copy_run(store)
    return store


@pytest.mark.parametrize("contract", [c for c in C.ALL if c is not C.PUBLICATIONS], ids=lambda c: c.name)
def test_every_table_is_read_back_without_a_jvm(run_store: TableStore, contract: C.Contract) -> None:
    table = DeltaTable(run_store.path(contract))
    back = table.to_pandas()
    assert table.version() == run_store.version(contract) == 1
    assert list(back.columns) == contract.column_names
    assert len(back) == len(all_rows("r1")[contract.name])
    assert table.metadata().description == contract.comment
    comments = {field.name: field.metadata["comment"] for field in table.schema().fields}
    assert comments == {column.name: column.comment for column in contract.columns}
    assert len(table.file_uris()) == 1
    assert table.protocol().min_reader_version == 1
    nullable = {field.name: field.nullable for field in table.schema().fields}
    assert nullable == {column.name: column.nullable for column in contract.columns}
    settings = table.metadata().configuration
    assert settings["fm_spark.contract_version"] == str(contract.version)
    checks = {name.removeprefix("delta.constraints."): sql for name, sql in settings.items() if "constraints" in name}
    assert checks == {column.name: constraint(column) for column in contract.columns if column.condition}
    assert settings.items() >= dict(contract.properties).items()


def test_values_survive_the_way_to_pandas(run_store: TableStore) -> None:
    store = run_store
    events = DeltaTable(store.path(C.EVENTS)).to_pandas()
    assert events["time"].iloc[0].to_pydatetime() == START
    assert events["user_id"].dtype == np.int64
    model = DeltaTable(store.path(C.FM_MODEL)).to_pandas().iloc[0]
    assert dict(model["metrics"]) == {"ndcg_at_10": 0.3}
    assert list(model["decays"]) == [0.8]
    attributes = DeltaTable(store.path(C.ITEMS)).to_pandas()["attributes"].iloc[0]
    assert {name: list(values) for name, values in dict(attributes).items()} == {"brand": ["a"], "kinds": []}
    profile = DeltaTable(store.path(C.CLUSTER_PROFILES)).to_pandas().iloc[0]
    assert profile["exemplars"][0] == {"item_id": "1", "title": "[REC] (2007)", "distance": 0.1, "count": 2}
    factors = DeltaTable(store.path(C.FM_PARAMETERS)).to_pandas()["factors"].iloc[0]
    np.testing.assert_array_equal(np.asarray(factors), [1.0, 1.0, 1.0])


def test_string_ids_are_kept(spark: SparkSession, store: TableStore) -> None:
    store.write(lists(spark).withColumn("user_id", F.concat(F.lit("0"), "user_id")), C.TOP_N, "r1")
    assert set(DeltaTable(store.path(C.TOP_N)).to_pandas()["user_id"]) == {"00", "01", "02"}


def test_the_same_run_twice_leaves_the_same_rows_and_other_runs_alone(spark: SparkSession, store: TableStore) -> None:
    store.write(lists(spark, "r1"), C.TOP_N, "r1")
    store.write(lists(spark, "r2"), C.TOP_N, "r2")
    version = store.write(lists(spark, "r1", score="0.75"), C.TOP_N, "r1")

    rows = DeltaTable(store.path(C.TOP_N)).to_pandas().sort_values(["run_id", "user_id"])
    assert version == 3
    assert rows["score"].tolist() == [0.75] * 3 + [0.5] * 3
    assert rows["run_id"].tolist() == ["r1"] * 3 + ["r2"] * 3


def test_a_run_id_is_a_literal_not_a_condition(spark: SparkSession, store: TableStore) -> None:
    store.write(lists(spark, "r1"), C.TOP_N, "r1")
    odd = "x' OR '1'='1"
    store.write(lists(spark).withColumn("run_id", F.lit(odd)), C.TOP_N, odd)
    assert store.read(C.TOP_N).count() == 6


def test_replace_keeps_the_new_rows_only_and_old_versions_can_be_read(spark: SparkSession, store: TableStore) -> None:
    rows = all_rows("r1")["items"]
    first = store.write(frame(spark, C.ITEMS, rows), C.ITEMS, "r1")
    second = store.write(frame(spark, C.ITEMS, rows[:2]), C.ITEMS, "r1")
    assert (store.read(C.ITEMS).count(), store.read(C.ITEMS, first).count()) == (2, 5)
    assert store.version(C.ITEMS) == second == first + 1


def test_append_adds_only_what_is_new_and_never_changes_a_row(spark: SparkSession, store: TableStore) -> None:
    store.write(vocabulary(spark, [("item", "a", 0)], "r1"), C.VOCABULARY, "r1")
    grown = vocabulary(spark, [("item", "a", 0), ("item", "b", 1)], "r2")
    version = store.write(grown, C.VOCABULARY, "r2")
    again = store.write(grown, C.VOCABULARY, "r2")

    rows = DeltaTable(store.path(C.VOCABULARY)).to_pandas().sort_values("feature")
    assert (version, again) == (2, 2)
    assert rows[["value", "feature", "run_id"]].values.tolist() == [["a", 0, "r1"], ["b", 1, "r2"]]
    with pytest.raises(TableError, match=r"only grows.*'value': 'a', 'feature': 7"):
        store.write(vocabulary(spark, [("item", "a", 7)], "r3"), C.VOCABULARY, "r3")
    assert store.version(C.VOCABULARY) == 2
    comments = {f.name: f.metadata.get("comment") for f in DeltaTable(store.path(C.VOCABULARY)).schema().fields}
    assert comments == {c.name: c.comment for c in C.VOCABULARY.columns}


def test_every_commit_says_who_made_it(spark: SparkSession, store: TableStore) -> None:
    store.write(lists(spark, "r1"), C.TOP_N, "r1")
    store.write(lists(spark, "r2"), C.TOP_N, "r2")
    notes = [json.loads(commit["userMetadata"]) for commit in DeltaTable(store.path(C.TOP_N)).history()]
    assert [(note.get("run_id"), note.get("job"), note["table"]) for note in notes] == [
        ("r2", "recommend", "top_n"), ("r1", "recommend", "top_n"), (None, None, "top_n"),
    ]  # fmt: skip
    assert notes[-1]["contract_version"] == C.TOP_N.version
    versions = [store.version_of_run(C.TOP_N, run) for run in ("r1", "r2", "r3")]
    assert versions == [1, 2, None]


def test_rows_lie_in_the_order_of_the_contract(spark: SparkSession, store: TableStore) -> None:
    shuffled = lists(spark, users=range(500)).repartition(3, F.hash("item_id"))
    store.write(shuffled, C.TOP_N, "r1")
    assert DeltaTable(store.path(C.TOP_N)).to_pandas()["user_id"].tolist() == list(range(500))


def test_large_tables_get_several_files_with_disjoint_keys(
    spark: SparkSession, store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fm_spark.tables.shape.FILE_BYTES", 4_000)
    store.write(lists(spark, users=range(1000)), C.TOP_N, "r1")
    files = DeltaTable(store.path(C.TOP_N)).get_add_actions(flatten=True)
    bounds = sorted(zip(files["min.user_id"].to_pylist(), files["max.user_id"].to_pylist(), strict=True))
    assert len(bounds) >= 3
    assert all(end < start for (_, end), (start, _) in pairwise(bounds))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda df: df.drop("rank", "score"), "no column rank, score"),
        (
            lambda df: df.withColumn("score", F.when(F.col("user_id") > 0, F.col("score"))),
            r"no value in score \(1 of 3 rows\): \(r1, default, 0, 1\)",
        ),
        (lambda df: df.withColumn("user_id", F.lit(7)), r"1 keys .* \(r1, default, 7, 1\) 3 times"),
        (
            lambda df: df.withColumn("run_id", F.lit("other")),
            r"run_id must be r1 \(3 of 3 rows\): \(other, default, 0, 1\) has other",
        ),
        (
            lambda df: df.withColumn("rank", -F.col("user_id").cast("int")),
            r"rank must be >= 1 \(3 of 3.*\(r1, default, 1, -1\) has -1",
        ),
        (lambda df: df.withColumn("score", F.lit("NaN").cast("double")), r"score (must be finite|\(3 of 3 rows\))"),
        (lambda df: df.withColumn("score", F.lit("-Infinity").cast("double")), r"score must be finite .*has -inf"),
        (lambda df: df.withColumn("source", F.lit("guess")), r"source must be one of model, .* has guess"),
        (lambda df: df.withColumn("user_id", F.col("user_id") + 0.5), "identifiers are bigint or string"),
        (lambda df: df.withColumn("user_id", F.col("user_id").cast("string")), "user_id as bigint.*string"),
    ],
    ids=[
        "missing column",
        "null",
        "repeated key",
        "other run",
        "bound",
        "nan",
        "infinite",
        "unknown word",
        "no id type",
        "other id type",
    ],
)
def test_bad_rows_are_refused_and_the_last_version_stays(
    spark: SparkSession, good: TableStore, change, message
) -> None:
    bad = change(lists(spark))
    with pytest.raises(TableError, match=message):
        good.write(bad, C.TOP_N, "r1")
    with pytest.raises(TableError, match=message):
        good.write(bad.toPandas(), C.TOP_N, "r1")
    assert (good.version(C.TOP_N), good.read(C.TOP_N).count()) == (1, 3)


@pytest.mark.parametrize("contract", C.ALL, ids=lambda contract: contract.name)
def test_rows_of_the_driver_become_the_same_table(
    spark: SparkSession, run_store: TableStore, tmp_path: Path, elsewhere: Callable[[], None], contract: C.Contract
) -> None:
    rows = [*all_rows("r1")[contract.name], *published_row(contract)]
    driver = run_store  # written from rows of the driver
    if contract is C.PUBLICATIONS:
        driver = TableStore(spark, str(tmp_path / "driver"))
        driver.write(pd.DataFrame(rows), contract, "r1")
    if contract is C.FM_MODEL:
        rows = [row | {"input_versions": {"events": 1, "items": 1, "vocabulary": 1}} for row in rows]
    elsewhere()
    made = TableStore(spark, str(tmp_path / "spark"))
    made.write(frame(spark, contract, rows), contract, "r1")
    tables = [DeltaTable(store.path(contract)) for store in (made, driver)]
    assert tables[0].schema() == tables[1].schema()
    assert made.read(contract).collect() == driver.read(contract).collect()
    entries = [pa.table(table.get_add_actions(flatten=True)).to_pylist() for table in tables]
    assert [entry_of_file(one) for one in entries[0]] == [entry_of_file(one) for one in entries[1]]


def entry_of_file(entry: dict[str, Any]) -> dict[str, Any]:
    """What the log says of the values in a file; Spark cuts text after 32 letters."""
    said = {
        name: value for name, value in entry.items() if name.startswith(("num_records", "null_count", "min", "max"))
    }
    return {name: value[:32] if isinstance(value, str) else value for name, value in said.items()}


def test_tables_are_written_side_by_side_and_each_commit_says_its_own(spark: SparkSession, store: TableStore) -> None:
    names = [f"r{i}" for i in range(4)]
    contracts = (C.TOP_N, C.ITEMS, C.VOCABULARY, C.DATA_QUALITY)
    rows = {contract.name: frame(spark, contract, all_rows("r1")[contract.name]) for contract in contracts[1:]}
    rows["top_n"] = lists(spark, "r0")

    def write(contract: C.Contract, run_id: str) -> int:
        made = rows[contract.name].withColumn("run_id", F.lit(run_id))
        return store.write(made, contract, run_id)

    tasks = {c.name: partial(write, c, run) for c, run in zip(contracts, names, strict=True)}
    assert set(side_by_side(tasks).values()) == {1}
    notes = {c.name: json.loads(DeltaTable(store.path(c)).history()[0]["userMetadata"])["run_id"] for c in contracts}
    assert notes == {c.name: run for c, run in zip(contracts, names, strict=True)}


@pytest.mark.parametrize(
    ("check", "type_", "values"),
    [
        (C.Check(), "double", [0.0, None, math.inf, -math.inf]),
        (C.Check(at_least=0), "double", [-0.5, 0.0, math.inf, None]),
        (C.Check(at_most=1), "float", [1.0, 1.5, -math.inf]),
        (C.Check(at_least=0, at_most=1), "int", [-1, 0, 1, 2, None]),
        (C.Check(one_of=("a'b", "c")), "string", ["a'b", "c", "d", None]),
        (C.Check(), "array<float>", [[1.0, math.nan], [0.0], [], [-math.inf, 2.0], None]),
        (C.Check(at_least=0), "array<int>", [[0, 1], [2, -1], []]),
        (C.Check(one_of=("a",)), "array<string>", [["a", "a"], ["b"], []]),
        (
            C.Check(fields=(("share", C.Check(at_least=0, at_most=1)), ("n", C.Check(at_least=2)))),
            "array<struct<name:string,share:double,n:bigint>>",
            [[("x", 0.5, 2)], [("x", 0.5, 2), ("y", 1.5, 2)], [("x", math.nan, 2)], [("x", 0.0, 1)], []],
        ),
    ],
    ids=str,
)
def test_a_check_means_the_same_in_spark_and_on_the_driver(
    spark: SparkSession, check: C.Check, type_: str, values: list[Any]
) -> None:
    column = C.Column("x", type_, "", nullable=True, check=check)
    rows = spark.createDataFrame([(value,) for value in values], f"x {type_}")
    in_spark = [row[0] is not False for row in rows.selectExpr(column.condition).collect()]
    assert fulfilled(pd.Series(values, dtype=object), check, type_).tolist() == in_spark
    assert not all(in_spark)


def test_all_that_is_wrong_is_said_at_once_with_five_rows_each(spark: SparkSession, store: TableStore) -> None:
    rows = lists(spark, users=range(9)).withColumns({"rank": F.lit(0), "title": F.lit(None).cast("string")})
    rows = rows.unionAll(rows)
    said = []
    for given in (rows, rows.toPandas()):
        with pytest.raises(TableError, match=r"rank must be >= 1 \(18 of 18 rows\)") as raised:
            store.write(given, C.TOP_N, "r1")
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert said[0].count("has 0") == said[0].count("2 times") == 5
    assert "no value in title (18 of 18 rows): (r1, default, 0, 0), (r1, default, 0, 0), (r1, default, 1, 0)" in said[0]
    assert "9 keys occur more than once" in said[0]
    assert not store.exists(C.TOP_N)


def in_order(rows: DataFrame) -> DataFrame:
    """The rows as a task makes them that proves their order."""
    proof = partial(ascending, key=("user_id", "list_name", "rank"), table="top_n")
    return rows.repartitionByRange(2, "user_id").sortWithinPartitions("user_id").mapInArrow(proof, rows.schema)


@pytest.mark.parametrize("mode", ["new", "there"])
def test_rows_in_order_are_written_as_they_come(spark: SparkSession, store: TableStore, mode: str) -> None:
    if mode == "there":
        store.write(lists(spark, users=range(1)), C.TOP_N, "r1")
    version = store.write(in_order(lists(spark, users=range(100))), C.TOP_N, "r1", in_order=True)
    assert sorted(row["user_id"] for row in store.read(C.TOP_N, version).collect()) == list(range(100))
    files = DeltaTable(store.path(C.TOP_N)).get_add_actions(flatten=True)
    bounds = sorted(zip(files["min.user_id"].to_pylist(), files["max.user_id"].to_pylist(), strict=True))
    assert len(bounds) == 2
    assert bounds[0][1] < bounds[1][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda df: df.unionAll(df), r"rows do not follow .*\((\d), default, 1\) after \(\1, default, 1\)"),
        (lambda df: df.withColumn("rank", F.lit(0)), r"rank must be >= 1 \(3 of 3 rows\): \(r1, default, 0, 0\) has 0"),
        (lambda df: df.withColumn("title", F.lit(None).cast("string")), r"no value in title \(3 of 3 rows\)"),
        (lambda df: df.withColumn("run_id", F.lit("other")), r"run_id must be r1 \(3 of 3 rows\)"),
    ],
    ids=["repeated key", "bound", "null", "other run"],
)
def test_bad_rows_in_order_are_refused_before_the_commit(
    spark: SparkSession, good: TableStore, change, message
) -> None:
    with pytest.raises(TableError, match=message):
        good.write(in_order(change(lists(spark))), C.TOP_N, "r1", in_order=True)
    assert (good.version(C.TOP_N), good.read(C.TOP_N).count()) == (1, 3)


def test_at_most_five_repeated_keys_are_named(spark: SparkSession, store: TableStore) -> None:
    twice = lists(spark, users=range(9)).unionAll(lists(spark, users=range(9)))
    with pytest.raises(TableError, match="9 keys") as raised:
        store.write(twice, C.TOP_N, "r1")
    assert str(raised.value).count("2 times") == 5
    assert not store.exists(C.TOP_N)


def test_a_null_is_fine_where_the_contract_says_so(spark: SparkSession, store: TableStore) -> None:
    store.write(frame(spark, C.ITEMS, all_rows("r1")["items"]), C.ITEMS, "r1")
    assert DeltaTable(store.path(C.ITEMS)).to_pandas()["year"].isna().all()


@pytest.mark.parametrize("mode", ["new", "there"])
def test_rows_that_fail_on_the_way_leave_the_last_version(
    spark: SparkSession, store: TableStore, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    if mode == "there":
        store.write(lists(spark), C.TOP_N, "r1")
    broken = lists(spark).withColumn("score", F.raise_error(F.lit("broken on purpose")).cast("double"))
    # without the check the failure comes in the middle of Delta's own write
    monkeypatch.setattr("fm_spark.tables.store.check_rows", lambda *_: type("Found", (), {"rows": 3, "bytes": 9}))
    with pytest.raises(Exception, match="broken on purpose"):
        store.write(broken, C.TOP_N, "r1")
    if mode == "there":
        assert (store.version(C.TOP_N), store.read(C.TOP_N).count()) == (1, 3)
    else:
        assert store.read(C.TOP_N).isEmpty()
        assert store.write(lists(spark), C.TOP_N, "r1") == 1


def test_an_empty_table_can_be_written_and_read(spark: SparkSession, store: TableStore) -> None:
    store.write(spark.createDataFrame([], schema(C.TOP_N)), C.TOP_N, "r1")
    assert DeltaTable(store.path(C.TOP_N)).to_pandas().empty


def test_a_missing_table_names_the_job_to_run(store: TableStore) -> None:
    for contract in C.ALL:
        with pytest.raises(TableError, match=rf"no table {contract.name} at .*run ./spark-submit.sh \w+ first"):
            store.read(contract)


def test_a_version_that_is_not_there(spark: SparkSession, store: TableStore) -> None:
    store.write(lists(spark), C.TOP_N, "r1")
    with pytest.raises(TableError, match=r"top_n at version 9 .*: the newest is 1"):
        store.read(C.TOP_N, 9)


def test_the_root_must_be_a_folder_that_can_be_written(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for root, message in [
        (str(file), "is a file; set tables.root to a folder"),
        (str(file / "below"), "cannot use .*not a directory"),
        ("/proc/fm_spark", "cannot use /proc/fm_spark .*cannot be created"),
        ("nowhere://bucket/x", 'No FileSystem for scheme "nowhere"'),
    ]:
        with pytest.raises(TableError, match=message):
            TableStore(spark, root).write(lists(spark), C.TOP_N, "r1")
    assert file.read_text() == "kept"


def test_what_is_not_ours_is_left_alone(spark: SparkSession, store: TableStore) -> None:
    store.check_writable()
    folder = Path(store.path(C.TOP_N))
    folder.mkdir()
    (folder / "notes.txt").write_text("kept")
    with pytest.raises(TableError, match=r"is not a Delta table; move it away or set another tables\.root"):
        store.write(lists(spark), C.TOP_N, "r1")
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]

    foreign = Path(store.path(C.ITEMS))
    spark.range(3).write.format("delta").save(str(foreign))
    with pytest.raises(TableError, match="did not write as items"):
        store.write(frame(spark, C.ITEMS, all_rows("r1")["items"]), C.ITEMS, "r1")
    with pytest.raises(TableError, match="did not write as items"):
        store.read(C.ITEMS)
    assert DeltaTable(str(foreign)).version() == 0


def test_an_empty_folder_at_the_place_of_a_table_is_no_obstacle(spark: SparkSession, store: TableStore) -> None:
    Path(store.path(C.TOP_N)).mkdir(parents=True)
    assert store.write(lists(spark), C.TOP_N, "r1") == 1


def test_roots_are_paths_or_uris(spark: SparkSession, tmp_path: Path) -> None:
    plain, uri = (
        TableStore(spark, str(tmp_path / "a b")),
        TableStore(spark, (tmp_path / "a b").as_uri().replace("%20", " ")),
    )
    plain.write(lists(spark), C.TOP_N, "r1")
    assert uri.root == plain.root == str(tmp_path / "a b")
    assert uri.local_root == tmp_path / "a b"
    assert uri.read(C.TOP_N).count() == 3


def test_nothing_stays_cached_and_no_setting_changes(spark: SparkSession, store: TableStore) -> None:
    key = "spark.databricks.delta.commitInfo.userMetadata"
    before = spark.conf.get(key, None), spark.sparkContext._jsc.getPersistentRDDs().size()
    store.write(lists(spark), C.TOP_N, "r1")
    with pytest.raises(TableError):
        store.write(lists(spark).drop("score"), C.TOP_N, "r1")
    assert (spark.conf.get(key, None), spark.sparkContext._jsc.getPersistentRDDs().size()) == before
