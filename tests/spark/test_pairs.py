from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_run import frame
from taste_run import GREEDY, ITEMS, MODEL, N_USERS, RUN, START, expected_ranking, histories

from fm_spark.config import Config
from fm_spark.errors import ConfigError, InputError, TableError
from fm_spark.ranking.filters import Rule
from fm_spark.ranking.inputs import load_inputs
from fm_spark.ranking.list_rules import ListRule
from fm_spark.ranking.served import served
from fm_spark.ranking.top_n import top_n_rows
from fm_spark.tables import contracts as C
from fm_spark.tables.store import TableStore
from jobs import rerank, score


def with_score(config: Config, source: Path | str, target: Path | str, **more: object) -> Config:
    return replace(config, score=replace(config.score, input=str(source), output=str(target), **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def top_scores(spark: SparkSession, taste: Config) -> dict[tuple[int, int], float]:
    """What top_n says about every user and item."""
    store = TableStore(spark, taste.tables.root)
    read = load_inputs(store, taste, "publish")
    everything = ListRule("all", len(ITEMS), False, Rule(None, {}, len(ITEMS)), np.ones(len(ITEMS), bool))
    with top_n_rows(served(store, read), read.machine, read.catalogue, [everything]) as rows:
        return {(row["user_id"], row["item_id"]): row["score"] for row in rows.frame().collect()}


def test_a_csv_keeps_its_rows_columns_and_order(
    spark: SparkSession, taste: Config, top_scores: dict[tuple[int, int], float], tmp_path: Path
) -> None:
    lines = [
        'note,user_id,item_id,"a ""b"".c"',
        'last,11,139,"x, y"', "first,0,100,", "again,11,139,z", f"seen,{GREEDY},101,é", "nobody,999,105,",
        "nothing,3,55555,", "neither,999,55555,", "empty,,104,", "text,4,abc,", "fraction,4,102.5,",
    ]  # fmt: skip
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = score.run(spark, with_score(taste, tmp_path / "pairs.csv", tmp_path / "out" / "scores.csv"))
    found = pd.read_csv(tmp_path / "out" / "scores.csv", dtype={"user_id": str, "item_id": str})
    added = ["score", "source", "run_id", "model_version"]
    assert list(found.columns) == ["note", "user_id", "item_id", 'a "b".c', *added]
    assert found["note"].tolist() == [line.split(",")[0] for line in lines[1:]]
    assert found['a "b".c'].fillna("").tolist() == ["x, y", "", "z", "é", *[""] * 6]
    wanted = [top_scores[11, 139], top_scores[0, 100], top_scores[11, 139], top_scores[GREEDY, 101]]
    np.testing.assert_allclose(found["score"][:4], wanted, rtol=0, atol=1e-6)
    assert found["source"].tolist() == ["model"] * 4 + ["popular"] + ["unknown_item"] * 2 + ["invalid"] * 3
    assert found["score"].isna().tolist() == [False] * 7 + [True] * 3
    assert (set(found["run_id"]), set(found["model_version"])) == ({RUN}, {MODEL})
    assert result.rows == 10
    assert result.sources == {"invalid": 3, "model": 4, "popular": 1, "unknown_item": 2}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.csv"]


def test_parquet_and_delta_are_read_and_written(
    spark: SparkSession, taste: Config, top_scores: dict[tuple[int, int], float], tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    pairs = pd.DataFrame({"who": rng.integers(0, N_USERS, 300).astype(float), "what": rng.choice(ITEMS, 300)})
    pairs["tags"] = [[f"t{i}"] for i in range(300)]
    pairs["score"] = range(300)
    pairs.to_parquet(tmp_path / "pairs.parquet")
    names = {"user_column": "who", "item_column": "what"}
    score.run(spark, with_score(taste, tmp_path / "pairs.parquet", tmp_path / "scores.parquet", **names))
    found = pd.read_parquet(tmp_path / "scores.parquet")
    assert found["input_score"].tolist() == list(range(300))
    assert [list(tags) for tags in found["tags"]] == pairs["tags"].tolist()
    wanted = [top_scores[int(who), what] for who, what in zip(pairs["who"], pairs["what"], strict=True)]
    np.testing.assert_allclose(found["score"], wanted, rtol=0, atol=1e-6)
    spark.read.parquet(str(tmp_path / "pairs.parquet")).drop("score").write.format("delta").save(str(tmp_path / "d"))
    for _ in range(2):  # a result of ours may be replaced
        score.run(spark, with_score(taste, tmp_path / "d", tmp_path / "scores", **names))
    table = DeltaTable(str(tmp_path / "scores"))
    assert table.version() == 1
    delta = table.to_pandas()
    assert sorted(zip(delta["who"], delta["what"], delta["score"], strict=True)) == sorted(
        zip(found["who"], found["what"], found["score"], strict=True)
    )
    with pytest.raises(ConfigError, match="CSV cannot hold column tags"):
        score.run(spark, with_score(taste, tmp_path / "d", tmp_path / "scores.csv", **names))


def test_what_fm_spark_did_not_write_stays(spark: SparkSession, taste: Config, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id\n1,100\n")
    mine = "user_id,score\n1,0.5\n"
    (tmp_path / "mine.csv").write_text(mine)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    cases: list[tuple[str, type[Exception], str]] = [
        ("mine.csv", TableError, r"score\.output = .*mine\.csv.*did not write"),
        ("folder", TableError, "did not write as a delta result"),
        ("pairs.csv", ConfigError, r"would overwrite .*pairs\.csv, which fm_spark reads"),
        ("mine.csv/scores", TableError, "score.output"),
        ("", ConfigError, "score.output is empty"),
    ]
    for name, kind, message in cases:
        with pytest.raises(kind, match=message):
            score.run(spark, with_score(taste, pairs, tmp_path / name if name else ""))
    with pytest.raises(ConfigError, match=r"would overwrite .*events, which fm_spark reads"):
        score.run(spark, with_score(taste, pairs, f"{taste.tables.root}/events"))
    assert (tmp_path / "mine.csv").read_text() == mine
    # a failure on the way leaves the last result
    good = tmp_path / "scores.csv"
    score.run(spark, with_score(taste, pairs, good))
    before = good.read_text()
    pairs.write_text("user_id,item_id\n1,100\n1,101,7,8\n")
    with pytest.raises(InputError, match=r"1 lines have a wrong number of fields[\s\S]*pairs.csv line 3"):
        score.run(spark, with_score(taste, pairs, good))
    assert good.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "mine.csv", "pairs.csv", "scores.csv"]


def test_models_and_columns_that_are_not_there(spark: SparkSession, taste: Config, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("user,item_id\n1,100\n")
    config = with_score(taste, tmp_path / "pairs.csv", tmp_path / "scores")
    with pytest.raises(InputError, match=r"no column 'user_id'; it has user, item_id; set score\.user_column"):
        score.run(spark, config)
    missing = replace(config, score=replace(config.score, model="fm-none"))
    with pytest.raises(ConfigError, match=rf"score\.model = 'fm-none' is neither.*newest are {MODEL} \(run {RUN}\)"):
        score.run(spark, missing)
    other = replace(missing, run=replace(config.run, id="r9"), score=replace(config.score, model=MODEL))
    with pytest.raises(ConfigError, match=r"of run taste, and run\.id = 'r9'"):
        score.run(spark, other)
    with pytest.raises(ConfigError, match="needs events with ratings"):
        score.run(spark, replace(config, score=replace(config.score, user_column="user", answer="class")))


def test_candidates_come_out_in_order_and_none_is_lost(spark: SparkSession, taste: Config, tmp_path: Path) -> None:
    lines = [f"{user},{item},{item % 7}" for item in (139, 102, 105, 102, 777, 130) for user in (4, 7)]
    (tmp_path / "in.csv").write_text("user_id,item_id,rank\n" + "\n".join([*lines, "x,100,0"]) + "\n")
    config = replace(
        taste, rerank=replace(taste.rerank, input=str(tmp_path / "in.csv"), output=str(tmp_path / "o.csv"))
    )
    result = rerank.run(spark, config)
    found = pd.read_csv(tmp_path / "o.csv")
    assert result.rows == len(found) == 13
    assert list(found.columns)[:5] == ["user_id", "item_id", "input_rank", "rank", "score"]
    for user in (4, 7):
        own = found[found["user_id"] == str(user)]
        assert own["rank"].tolist() == [1, 2, 3, 4, 5, 6]
        order = expected_ranking(histories()[user], hidden=[])
        known = own[own["item_id"] != 777]
        assert known["item_id"].tolist() == sorted([139, 102, 105, 102, 130], key=order.index)
        assert (own["score"].diff().dropna() <= 0).all()
    assert found.iloc[-1][["user_id", "source"]].tolist() == ["x", "invalid"]


@pytest.fixture(scope="module")
def later(spark: SparkSession, taste: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The run with a newer log: user 0 went on with odd items, user 77 is new, item 900 (Odd) is new."""
    root = tmp_path_factory.mktemp("later") / "tables"
    shutil.copytree(taste.tables.root, root)
    store = TableStore(spark, str(root))
    events, items = store.read(C.EVENTS), store.read(C.ITEMS)
    new = [(0, 101), (0, 103), (77, 111), (77, 900)]
    rows = [
        {
            "user_id": user, "item_id": item, "time": START + timedelta(days=100 + n), "value": 5.0, "label": 1.0,
            "weight": 1.0, "split": "train", "position": 100 + n, "item_feature": 2 * (item - 100),
            "indices": [], "values": [], "run_id": "next",
        }
        for n, (user, item) in enumerate(new)
    ]  # fmt: skip
    grown = events.withColumn("run_id", F.lit("next")).unionByName(frame(spark, C.EVENTS, rows))
    store.write(grown, C.EVENTS, "next")
    one = items.limit(1).withColumns({"item_id": F.lit(900).cast("bigint"), "item_feature": F.lit(1600)})
    more = one.withColumns({"genres": F.array(F.lit("Odd")), "count": F.lit(1).cast("bigint")})
    store.write(items.unionByName(more).withColumn("run_id", F.lit("next")), C.ITEMS, "next")
    return replace(taste, tables=replace(taste.tables, root=str(root)))


def test_newer_events_serve_their_users(
    spark: SparkSession, later: Config, top_scores: dict[tuple[int, int], float], tmp_path: Path
) -> None:
    pairs = pd.DataFrame({"user_id": [0, 0, 2, 77, 77, 77], "item_id": [100, 139, 100, 139, 100, 900]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    score.run(spark, with_score(later, tmp_path / "pairs.csv", tmp_path / "s.csv"))
    found = pd.read_csv(tmp_path / "s.csv")
    assert found["source"].tolist() == ["history", "history", "model", "history", "history", "unknown_item"]
    values = found["score"]
    assert values[0] < values[1]  # his newest items are odd
    assert values[2] == pytest.approx(top_scores[2, 100], abs=1e-6)
    assert values[3] == pytest.approx(5.0 - 0.39, abs=1e-5)  # one known item: the new one is not in his history
    assert values[4] == pytest.approx(0.0, abs=1e-5)


def test_tables_of_other_runs_are_refused(spark: SparkSession, later: Config, tmp_path: Path) -> None:
    root = tmp_path / "tables"
    shutil.copytree(later.tables.root, root)
    store = TableStore(spark, str(root))
    store.write(store.read(C.ITEMS).withColumn("item_feature", 1600 - F.col("item_feature")), C.ITEMS, "next")
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n1,100\n")
    mixed = replace(later, tables=replace(later.tables, root=str(root)))
    with pytest.raises(TableError, match="runs that do not belong together"):
        score.run(spark, with_score(mixed, tmp_path / "pairs.csv", tmp_path / "s.csv"))
