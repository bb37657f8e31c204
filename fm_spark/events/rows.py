"""From raw rows to typed ones: what cannot be read is counted, shown with its place, and refused or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from fm_spark.errors import InputError
from fm_spark.events.parsing import instant, is_empty, is_number, is_plain_integer, number, whole_number
from fm_spark.events.quality import MAX_EXAMPLES, Finding
from fm_spark.events.sources import MALFORMED, PROBLEM, Shape, Source

_UNREADABLE, _OUT_OF_RANGE = "_unreadable", "_out_of_range"


@dataclass(frozen=True)
class EventShape:
    """How raw columns ``user, item, time`` and perhaps ``value, weight`` become an event.

    Attributes:
        names: raw column -> name of the input's column, for messages.
        integer_ids: raw id column -> whether it becomes bigint (else string).
        value_range: least and greatest legal value; None for any finite number.
    """

    names: Mapping[str, str]
    integer_ids: Mapping[str, bool]
    time_unit: str
    value_range: tuple[float, float] | None = None

    def __call__(self, raw: DataFrame) -> DataFrame:
        """Adds the typed columns, ``_unreadable``, ``_out_of_range`` and ``_problem`` (text, null when fine)."""
        kinds = {f.name: f.dataType for f in raw.schema}
        typed = raw.select(
            "*",
            *[self._id(name, kinds[name]).alias(f"{name}_id") for name in ("user", "item")],
            instant("time", kinds["time"], self.time_unit).alias("_time"),
            (number("value") if "value" in kinds else F.lit(1.0)).alias("_value"),
            (number("weight") if "weight" in kinds else F.lit(1.0)).alias("_weight"),
        )
        hint = "a time" if self.time_unit == "timestamp" else f"a time in {self.time_unit} between the years 1 and 9999"
        problems = [
            F.when(F.col(MALFORMED), "wrong number of fields"),
            *[self._unless(f"{name}_id", name, "a whole number that fits 64 bits") for name in ("user", "item")],
            self._unless("_time", "time", hint),
            *([self._unless("_value", "value", "a finite number")] if "value" in kinds else []),
            *([self._unless("_weight", "weight", "a finite number")] if "weight" in kinds else []),
        ]
        rows = typed.withColumn(_UNREADABLE, F.coalesce(*problems))
        rows = rows.withColumn(_OUT_OF_RANGE, F.when(F.col(_UNREADABLE).isNull(), self._beyond()))
        return rows.withColumn(PROBLEM, F.coalesce(_UNREADABLE, _OUT_OF_RANGE))

    def _id(self, name: str, kind: T.DataType) -> Column:
        if self.integer_ids[name]:
            return whole_number(name)
        return F.when(~is_empty(name), F.col(name).cast("string"))

    def _unless(self, typed: str, raw: str, wanted: str) -> Column:
        shown = F.concat(F.lit(f"{self.names[raw]} '"), F.col(raw).cast("string"), F.lit(f"' is not {wanted}"))
        empty = F.lit(f"{self.names[raw]} is empty")
        return F.when(F.col(typed).isNull(), F.when(is_empty(raw), empty).otherwise(shown))

    def _beyond(self) -> Column:
        value: Column = F.lit(None).cast("string")
        if self.value_range is not None:
            least, most = self.value_range
            text = F.concat(
                F.lit(f"{self.names['value']} "), F.col("_value").cast("string"),
                F.lit(f" is outside {least:g} to {most:g}"),
            )  # fmt: skip
            value = F.when(~F.col("_value").between(least, most), text)
        negative = F.when(F.col("_weight") < 0, F.lit(f"{self.names.get('weight', 'weight')} is negative"))
        return F.coalesce(value, negative)


@dataclass(frozen=True)
class Checked:
    """Usable events and what was found on the way to them.

    Attributes:
        rows: user_id, item_id (bigint or string), time (timestamp), value, weight (double).
        read: rows in the input, bad ones included.
    """

    rows: DataFrame
    read: int
    findings: list[Finding] = field(default_factory=list)


def integer_ids(source: Source, id_type: str) -> dict[str, bool]:
    """Which of the raw columns ``user`` and ``item`` become bigint, by the rule of ``input.id_type``.

    ``auto``: a text column does when every value that is not empty is the canonical writing of a bigint; a column of
    another type stays what it is.

    Raises:
        InputError: an id column is neither text nor whole numbers.
    """
    rows = source.read()
    kinds = {name: rows.schema[name].dataType for name in ("user", "item")}
    for name, kind in kinds.items():
        if not isinstance(kind, T.StringType | T.ByteType | T.ShortType | T.IntegerType | T.LongType):
            raise InputError(
                f"{source.name}: the {name} ids have the type {kind.simpleString()}; ids are whole numbers or text"
            )
    if id_type != "auto":
        return dict.fromkeys(kinds, id_type == "integer")
    texts = [name for name, kind in kinds.items() if isinstance(kind, T.StringType)]
    decided = {name: name not in texts for name in kinds}
    if texts and hasattr(source, "parse"):  # text files carry no types; a string column of a table is text on purpose
        other = [F.count_if(~is_empty(name) & ~is_plain_integer(name)).alias(name) for name in texts]
        found = rows.agg(*other).collect()[0]
        decided.update({name: found[name] == 0 for name in texts})
    return decided


def checked_events(source: Source, shape: EventShape, policy: str) -> Checked:
    """Types every row in one cheap pass; when rows are bad, refuses them or leaves them out.

    Args:
        policy: ``input.bad_rows``: fail or drop.

    Raises:
        InputError: bad rows under ``fail``; no row at all; no usable row.
    """
    raw = source.read()
    _refuse_types(raw, shape, source)
    shaped = shape(raw)
    totals = shaped.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count(_UNREADABLE).alias("unreadable"),
        F.count(_OUT_OF_RANGE).alias("beyond"),
    ).collect()[0]
    if totals["rows"] == 0:
        raise InputError(f"{source.name} holds no rows, at most a header; give a file with events")
    bad = totals["unreadable"] + totals["beyond"]
    if bad and policy == "fail":
        refuse(source, shape, bad, totals["rows"])
    if bad == totals["rows"]:
        shown = "\n  ".join(source.examples(shape, MAX_EXAMPLES))
        raise InputError(f"{source.name}: none of the {bad:,} rows can be used; the first:\n  {shown}")
    good = shaped.where(F.col(PROBLEM).isNull()) if bad else shaped
    columns = {"user_id": "user_id", "item_id": "item_id", "_time": "time", "_value": "value", "_weight": "weight"}
    return Checked(
        good.select(*[F.col(old).alias(new) for old, new in columns.items()]),
        totals["rows"],
        [
            _finding(source, shape, "unreadable_rows", _UNREADABLE, totals["unreadable"],
                     "rows with a wrong number of fields, or whose id, time or number is empty, text, NaN or infinite"),
            _finding(source, shape, "out_of_range", _OUT_OF_RANGE, totals["beyond"],
                     f"rows with a value outside {_range_text(shape)}, or a negative weight"),
        ],
    )  # fmt: skip


def refuse(source: Source, shape: Shape, bad: int, rows: int) -> None:
    """Raises the InputError that counts the bad rows and shows the first five."""
    shown = "\n  ".join(source.examples(shape, MAX_EXAMPLES))
    raise InputError(
        f"{source.name}: {bad:,} of {rows:,} rows cannot be used; the first:\n  {shown}\n"
        "correct them, or leave them out with --set input.bad_rows=drop"
    )


def _finding(source: Source, shape: EventShape, check: str, column: str, rows: int, detail: str) -> Finding:
    def only(raw: DataFrame) -> DataFrame:
        return shape(raw).withColumn(PROBLEM, F.col(column))

    return Finding(check, rows, "dropped", detail, tuple(source.examples(only, MAX_EXAMPLES)) if rows else ())


def _range_text(shape: EventShape) -> str:
    return "the legal range" if shape.value_range is None else f"{shape.value_range[0]:g} to {shape.value_range[1]:g}"


def _refuse_types(raw: DataFrame, shape: EventShape, source: Source) -> None:
    kinds = {f.name: f.dataType for f in raw.schema}
    for name in ("value", "weight"):
        if name in kinds and not (is_number(kinds[name]) or isinstance(kinds[name], T.StringType)):
            raise InputError(
                f"{source.name}: column {shape.names[name]!r} has the type {kinds[name].simpleString()}; "
                f"set input.{name}_column to a column of numbers"
            )
    time = kinds["time"]
    dated = isinstance(time, T.TimestampType | T.TimestampNTZType | T.DateType)
    textual = isinstance(time, T.StringType)
    if not (dated or textual or (is_number(time) and shape.time_unit != "timestamp")):
        raise InputError(
            f"{source.name}: column {shape.names['time']!r} has the type {time.simpleString()}, which does "
            f"not fit input.time_unit = {shape.time_unit}; set input.time_unit to seconds or milliseconds, or "
            "input.time_column to another column"
        )
