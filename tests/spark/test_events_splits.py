"""The three splits against cases computed by hand."""

from __future__ import annotations

import pytest
from event_inputs import settings
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.events.cleaning import histories
from fm_spark.events.splits import add_split, global_time, random, time_cut, user_time


def log(spark: SparkSession, users: dict[int, str], start: int = 0) -> DataFrame:
    """Each user's events in order, one second apart: + liked, - not liked; items count from 1."""
    rows = [
        (user, item + 1, start + item, 5.0 if sign == "+" else 1.0)
        for user, signs in users.items()
        for item, sign in enumerate(signs)
    ]
    frame = spark.createDataFrame(rows, "user_id bigint, item_id bigint, t bigint, value double")
    timed = frame.select(
        "user_id", "item_id", F.timestamp_seconds("t").alias("time"), "value", F.lit(1.0).alias("weight")
    )
    return histories(timed, 4.0)


def cut(frame: DataFrame) -> dict[int, str]:
    """Each user's splits in the order of the history: R train, E test, . unused."""
    letters = {"train": "R", "test": "E", "unused": "."}
    out: dict[int, str] = {}
    for row in frame.orderBy("user_id", "position").collect():
        out[row["user_id"]] = out.get(row["user_id"], "") + letters[row["split"]]
    return out


def test_user_time_by_hand(spark: SparkSession) -> None:
    users = {
        1: "+++++",  # n = 5: floor(0.8 * 5) = 4
        2: "++++",  # too few positives
        3: "-+-+-+-+-+-",  # not liked before the first held-out one is trained on, after it nothing is
        4: "++++++",  # n = 6: floor(4.8) = 4, two held out
        5: "++++++-+-+++",  # n = 10: floor(8) = 8
        6: "---",
    }
    assert cut(user_time(log(spark, users), 0.2, 5)) == {
        1: "RRRRE", 2: "RRRR", 3: "RRRRRRRRRE.", 4: "RRRREE", 5: "RRRRRRRRRREE", 6: "RRR",
    }  # fmt: skip


def test_events_between_held_out_ones_are_unused(spark: SparkSession) -> None:
    assert cut(user_time(log(spark, {1: "++++++++-+-"}), 0.2, 5)) == {1: "RRRRRRRE.E."}


@pytest.mark.parametrize(
    ("fraction", "n", "held"),
    [(0.2, 5, 1), (0.2, 10, 2), (0.3, 10, 3), (0.9, 10, 9), (0.7, 10, 7), (0.1, 10, 1), (0.6, 5, 3), (0.45, 20, 9)],
)
def test_the_floor_knows_no_float_error(spark: SparkSession, fraction: float, n: int, held: int) -> None:
    assert cut(user_time(log(spark, {1: "+" * n}), fraction, 2))[1].count("E") == held


def test_ties_in_time_are_cut_by_item_id(spark: SparkSession) -> None:
    rows = [(1, item, 7, 5.0, 1.0) for item in (5, 4, 3, 2, 1)]
    frame = spark.createDataFrame(rows, "user_id bigint, item_id bigint, t bigint, value double, weight double")
    clean = histories(frame.withColumn("time", F.timestamp_seconds("t")), 4.0)
    held = user_time(clean, 0.2, 5).where("split = 'test'").collect()
    assert [row["item_id"] for row in held] == [5]


def test_global_time_by_hand(spark: SparkSession) -> None:
    early = log(spark, {1: "++++-", 2: "+", 3: "-+++"})  # seconds 0 to 4
    late = log(spark, {4: "++"}, start=3)
    rows = early.unionByName(late).persist()
    # 12 events at 0 0 0 1 1 2 2 3 3 3 4 4: nine of them (and the tie at 3) lie at or before 3
    assert time_cut(rows, 0.25) == 3_000_000
    assert time_cut(rows, 0.5) == 2_000_000
    assert cut(global_time(rows, 1_000_000, 2)) == {1: "RREE.", 2: "R", 3: "RREE", 4: ".."}
    assert cut(global_time(rows, 1_000_000, 4)) == {1: "RREE.", 2: "R", 3: "RR..", 4: ".."}
    rows.unpersist()


def test_time_cut_is_exact_to_the_microsecond(spark: SparkSession) -> None:
    micros = [-5, 0, 3, 4, 86_400_000_000, 40 * 365 * 86_400_000_000 + 7]
    frame = spark.createDataFrame([(m,) for m in micros], "m bigint").select(F.timestamp_micros("m").alias("time"))
    for wanted in (1, 4, 6):
        assert time_cut(frame, 1 - wanted / len(micros)) == micros[wanted - 1]


def test_random_depends_on_the_seed_and_on_nothing_else(spark: SparkSession) -> None:
    rows = log(spark, {1: "+" * 10 + "-" * 5, 2: "+" * 20, 3: "+++"})
    one = cut(random(rows, 0.2, 5, seed=1))
    assert {user: signs.count("E") for user, signs in one.items()} == {1: 2, 2: 4, 3: 0}
    assert "E" not in one[1][10:]
    assert "." not in "".join(one.values())
    assert cut(random(rows.repartition(5, "item_id"), 0.2, 5, seed=1)) == one
    assert cut(random(rows, 0.2, 5, seed=2)) != one


def test_the_configuration_chooses_the_split(spark: SparkSession) -> None:
    rows = log(spark, {1: "+++++", 2: "+++++"})
    for name, expected in {"user_time": "RRRRE", "global_time": "RRRRE"}.items():
        assert cut(add_split(rows, settings("x", events__split=name).events))[1] == expected
    assert cut(add_split(rows, settings("x", events__split="random").events))[1].count("E") == 1
