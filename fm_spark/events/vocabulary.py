"""The vocabulary: which feature index stands for which value of which field. It only ever grows."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from fm_spark.tables.contracts import VOCABULARY
from fm_spark.tables.store import TableStore

ITEM, GENRE = "item", "genre"
UNSEEN = "__unseen__"
"""The value that stands for every value of a field that the vocabulary does not list."""
_FIRST_FIELDS = (ITEM, GENRE)


def extend_vocabulary(store: TableStore, values: DataFrame, run_id: str) -> DataFrame:
    """Gives every new (field, value) the next feature index and returns the whole vocabulary.

    Indices are dense from 0 and never change. New ones are given field by field (item, genre, then the others by
    name); within a field ``__unseen__`` comes first, then the values in ascending order. A field's ``__unseen__`` is
    added by itself. Without a new value nothing is written, not even a commit.

    Args:
        values: field, value (strings; duplicates allowed) and, optionally, place: a column of any ordered type by
            which the values of a field are numbered instead of by their text.

    Returns:
        The rows of the ``vocabulary`` table, the new ones included.
    """
    place = F.col("place") if "place" in values.columns else F.col("value")
    own = F.struct(F.col("value"), place.alias("place"))
    unseen = F.struct(
        F.lit(UNSEEN).alias("value"), F.lit(None).cast(values.select(place).schema[0].dataType).alias("place")
    )
    entries = values.select("field", F.explode(F.array(own, unseen)).alias("entry"))
    new = entries.groupBy("field", "entry.value").agg(F.min("entry.place").alias("place"))
    used = 0
    if store.exists(VOCABULARY):
        known = store.read(VOCABULARY)
        used = int(known.agg(F.coalesce(F.max("feature") + 1, F.lit(0))).collect()[0][0])
        new = new.join(known.select("field", "value"), on=["field", "value"], how="left_anti")
    new = new.persist()
    try:
        sizes = {row["field"]: row["count"] for row in new.groupBy("field").count().collect()}
        if sizes:
            store.write(_numbered(new, sizes, used).withColumn("run_id", F.lit(run_id)), VOCABULARY, run_id)
    finally:
        new.unpersist()
    return store.read(VOCABULARY)


def _numbered(new: DataFrame, sizes: dict[str, int], used: int) -> DataFrame:
    """Adds ``feature``: the field's offset plus the value's rank in its field; one sort a field, none over all."""
    fields = sorted(sizes, key=lambda f: (_FIRST_FIELDS.index(f) if f in _FIRST_FIELDS else len(_FIRST_FIELDS), f))
    offset = F.lit(used)
    start = used
    for field in fields:
        offset = F.when(F.col("field") == field, F.lit(start)).otherwise(offset)
        start += sizes[field]
    order = Window.partitionBy("field").orderBy(F.col("value") != UNSEEN, "place", "value")
    return new.withColumn("feature", (offset + F.row_number().over(order) - 1).cast("int"))
