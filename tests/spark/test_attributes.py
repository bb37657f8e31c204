"""Declared columns of a file as one map of names."""

from __future__ import annotations

import re

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.errors import ConfigError, InputError
from fm_spark.events.attributes import (
    Attribute,
    parse_attributes,
    raw_columns,
    typed_attributes,
    unknown_attributes,
    with_attributes,
)

KEY = "input.item_columns"


def parse(*declared: str) -> tuple[Attribute, ...]:
    return parse_attributes(declared, KEY, "id")


def maps(rows: DataFrame, *declared: str) -> list[dict[str, list[str]]]:
    """The maps of rows with a column ``id`` and the declared ones, by id."""
    attributes = parse(*declared)
    raw = rows.select("id", *[F.col(f"`{name}`").alias(column) for column, name in raw_columns(attributes).items()])
    typed = typed_attributes(raw, attributes, "the file", KEY)
    assert raw.where(typed.problem.isNotNull()).count() == 0
    made = with_attributes(raw.select("id", typed.values.alias("v")), attributes, "v")
    assert made.schema["attributes"].dataType.simpleString() == "map<string,array<string>>"
    return [row["attributes"] for row in made.orderBy("id").collect()]


def test_names_and_kinds_of_declared_columns() -> None:
    assert parse("brand:categorical", " a:b : multi") == (Attribute("brand", "categorical"), Attribute("a:b", "multi"))
    assert parse() == ()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (["brand"], "'brand', which is not \"name:kind\""),
        (["brand:colour"], "kinds categorical, multi, numeric"),
        ([":multi"], 'not "name:kind"'),
        (["brand:multi", "brand:categorical"], "names the column 'brand' twice"),
        (["id:categorical"], "'id', which is the column of the ids"),
        (["__tags__:multi"], "begin with '__'"),
    ],
)
def test_declarations_that_are_refused(declared: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse(*declared)
    assert KEY in str(caught.value)


def test_text_as_it_stands_in_a_csv(spark: SparkSession) -> None:
    rows = [(1, " red ", "b| a|b||", "3"), (2, "", "", " "), (3, None, None, "NaN"), (4, "red|blue", "c", "-1e3")]
    frame = spark.createDataFrame(rows, "id int, colour string, kinds string, price string")
    assert maps(frame, "colour:categorical", "kinds:multi", "price:numeric") == [
        {"colour": ["red"], "kinds": ["a", "b"], "price": ["2/2"]},
        {"colour": ["__unseen__"], "kinds": [], "price": ["__unseen__"]},
        {"colour": ["__unseen__"], "kinds": [], "price": ["__unseen__"]},
        {"colour": ["red|blue"], "kinds": ["c"], "price": ["1/2"]},
    ]
    nothing = frame.select(unknown_attributes(parse("colour:categorical", "kinds:multi", "price:numeric")).alias("m"))
    assert nothing.first()["m"] == {"colour": ["__unseen__"], "kinds": [], "price": ["__unseen__"]}
    assert maps(frame) == [{}] * 4


def test_typed_columns_of_a_table(spark: SparkSession) -> None:
    rows = [(1, 7, [2, None, 1], True, float("nan")), (2, None, None, False, 0.5)]
    frame = spark.createDataFrame(rows, "id int, code int, many array<int>, flag boolean, x double")
    assert maps(frame, "code:categorical", "many:multi", "flag:categorical", "x:numeric") == [
        {"code": ["7"], "many": ["1", "2"], "flag": ["true"], "x": ["__unseen__"]},
        {"code": ["__unseen__"], "many": [], "flag": ["false"], "x": ["1/1"]},
    ]
    for declared in ("code:multi", "many:categorical", "many:numeric", "flag:numeric"):
        name, kind = declared.split(":")
        with pytest.raises(InputError, match=rf"'{name}' has the type \S+, which cannot be {kind}"):
            maps(frame, declared)


def test_numbers_become_deciles_whatever_the_partitions(spark: SparkSession) -> None:
    frame = spark.range(1, 41).select("id", F.col("id").alias("even"), (F.col("id") % 3).alias("few"),
                                      (F.col("id") > 39).cast("int").alias("rare"))  # fmt: skip
    found = maps(frame.repartition(3), "even:numeric", "few:numeric", "rare:numeric")
    assert found == maps(frame.repartition(1), "even:numeric", "few:numeric", "rare:numeric")
    assert [m["even"] for m in found] == [[f"{i // 4 + 1}/10"] for i in range(40)]
    assert [m["few"] for m in found] == [[f"{(i + 1) % 3 + 1}/3"] for i in range(40)]
    assert [m["rare"] for m in found] == [["1/2"]] * 39 + [["2/2"]]


def test_text_where_a_number_belongs(spark: SparkSession) -> None:
    texts = ["x", "1d", "inf", "1e999", "5", "", "nan"]
    frame = spark.createDataFrame(list(enumerate(texts)), "id int, attribute_0 string")
    typed = typed_attributes(frame, parse("price:numeric"), "the file", KEY)
    found = [row[0] for row in frame.orderBy("id").select(typed.problem).collect()]
    assert found == [f"price '{text}' is not a finite number" for text in texts[:4]] + [None] * 3
