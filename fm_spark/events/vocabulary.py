"""The vocabulary: which feature index stands for which value of which field. It only ever grows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fm_spark.tables.contracts import VOCABULARY
from fm_spark.tables.store import TableStore

ITEM, GENRE = "item", "genre"
UNSEEN = "__unseen__"
"""The value that stands for every value of a field that the vocabulary does not list."""
_FIRST_FIELDS = (ITEM, GENRE)


def extend_vocabulary(store: TableStore, values: pd.DataFrame, run_id: str) -> pd.DataFrame:
    """Gives every new (field, value) the next feature index and returns the whole vocabulary.

    Indices are dense from 0 and never change. New ones are given field by field (item, genre, then the others by
    name); within a field ``__unseen__`` comes first, then the values in the order of their first row. A field's
    ``__unseen__`` is added by itself. Without a new value nothing is written, not even a commit.

    The vocabulary has one row for each row of the parameters, which training holds on the driver too.

    Args:
        values: field, value (strings; duplicates allowed), the values of a field in the order of their numbers.

    Returns:
        field, value (strings), feature (int32): the rows of the ``vocabulary`` table, the new ones included.
    """
    known = _read(store)
    names = sorted(values["field"].unique(), key=lambda f: (f != ITEM, f != GENRE, f))
    wanted = pd.concat([_with_unseen(name, values["value"][values["field"] == name]) for name in names] or [known])
    new = _without(wanted[["field", "value"]].drop_duplicates(ignore_index=True), known)
    if new.empty:
        return known
    used = int(known["feature"].max()) + 1 if len(known) else 0
    new["feature"] = np.arange(used, used + len(new), dtype=np.int32)
    store.write(new.assign(run_id=run_id), VOCABULARY, run_id, new_keys=True)
    return pd.concat([known, new], ignore_index=True)


def _read(store: TableStore) -> pd.DataFrame:
    if not store.exists(VOCABULARY):
        return pd.DataFrame({"field": [], "value": [], "feature": np.empty(0, np.int32)})
    rows: pd.DataFrame = store.rows(VOCABULARY, columns=("field", "value", "feature")).to_pandas()
    return rows


def _with_unseen(field: str, values: pd.Series[str]) -> pd.DataFrame:
    return pd.DataFrame({"field": field, "value": [UNSEEN, *values]})


def _without(wanted: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The wanted rows whose field and value are not known, in their order."""
    there = pd.MultiIndex.from_frame(known[["field", "value"]])
    return wanted[~pd.MultiIndex.from_frame(wanted).isin(there)].reset_index(drop=True)
