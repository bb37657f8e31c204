"""What the input is turned into."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_0, SHARE, Check
from fm_spark.tables.contracts.contract import ID, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import RUN, Example

EVENTS = Contract(
    "events",
    "One row per interaction, in the order of each user's history, with the features that do not change over time",
    (
        Column("user_id", ID, "the customer, as in the input"),
        Column("item_id", ID, "the item, as in the input"),
        Column("time", "timestamp", "when, UTC"),
        Column("value", "double", "rating or strength, in the input's unit; 1 without a value column"),
        Column("label", "double", "1 when liked (value >= events.positive_threshold), else 0", check=SHARE),
        Column("weight", "double", "how many events this one counts for in training; 1 unless given", check=FROM_0),
        Column(
            "split",
            "string",
            "train (known before the test starts), test (held-out positive) or unused (later, not tested)",
            check=Check(one_of=("train", "test", "unused")),
        ),
        Column("position", "int", "0-based place in the user's history, by time, then item id", check=FROM_0),
        Column("item_feature", "int", "feature index of the item (field item of the vocabulary)", check=FROM_0),
        Column(
            "indices",
            "array<int>",
            "feature indices of the static fields (item, genres), ascending; key into vocabulary",
            check=FROM_0,
        ),
        Column("values", "array<float>", "feature values, parallel to indices"),
        RUN_ID,
    ),
    key=("user_id", "item_id"),
    mode="replace",
    order=("user_id", "position"),
    example=Example(
        "The history of a user", ("position", "item_id", "value", "split"), (("user_id", "=", 10),), "position"
    ),
)

VOCABULARY = Contract(
    "vocabulary",
    "(field, value) <-> feature index; rows are only ever added, so an index means the same in every model",
    (
        Column(
            "field",
            "string",
            "item, genre, year, tag, item:<column>, history_liked_<decay>, history_not_liked_<decay>, user, bag, "
            "hour_of_week, days_since_first, calendar, user:<column>",
        ),
        Column("value", "string", "the value as text; __unseen__ stands for every value that is not listed"),
        Column("feature", "int", "feature index, dense from 0", check=FROM_0),
        Column("run_id", "string", "the run that added the row"),
    ),
    key=("field", "value"),
    mode="append",
    order=("feature",),
    example=Example("The feature of an item", ("feature",), (("field", "=", "item"), ("value", "=", "1")), "feature"),
)

ITEMS = Contract(
    "items",
    "The catalogue: every item of the items file and every item that has an event",
    (
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "title; the id as text when the input has none"),
        Column("genres", "array<string>", "genres, sorted; empty when unknown"),
        Column("year", "int", "release year", nullable=True),
        Column("tags", "array<string>", "distinct tags given by users, lower case, most given first; empty when none"),
        Column("item_feature", "int", "feature index of the item (field item of the vocabulary)", check=FROM_0),
        Column("count", "bigint", "events of the item, all splits", check=FROM_0),
        Column(
            "attributes",
            "map<string, array<string>>",
            "values of the columns in input.item_columns, numbers as deciles, __unseen__ for what is not known; under "
            "__tags__, with train.tags, the tags given before the test starts",
        ),
        RUN_ID,
    ),
    key=("item_id",),
    mode="replace",
    order=("item_id",),
    example=Example("What an item is", ("item_id", "title", "count"), (("item_id", "=", 1),), "item_id"),
)

USERS = Contract(
    "users",
    "The users of the users' file, with what it says about them; written only with input.user_columns",
    (
        Column("user_id", ID, "the customer, as in the input"),
        Column("attributes", "map<string,array<string>>", "column -> values; of numbers the tenth they lie in"),
        RUN_ID,
    ),
    key=("user_id",),
    mode="replace",
    order=("user_id",),
    example=Example("Who is known", ("user_id",), (), "user_id"),
)

DATA_QUALITY = Contract(
    "data_quality",
    "What was read, what was found wrong and what was done about it; one row per check",
    (
        RUN_ID,
        Column("step", "string", "the job that checked: events, train, recommend, ..."),
        Column("check", "string", "what was looked for, for example exact_duplicates"),
        Column("rows", "bigint", "how many rows were found", check=FROM_0),
        Column("action", "string", "kept, dropped or counted", check=Check(one_of=("kept", "dropped", "counted"))),
        Column("detail", "string", "what the check means, in one sentence"),
        Column("examples", "array<string>", "up to five of the rows found"),
    ),
    key=("run_id", "step", "check"),
    mode="by_run",
    example=Example(
        "What was dropped from the input",
        ("step", "rows", "detail"),
        (("run_id", "=", RUN), ("rows", ">", 0)),
        "detail",
    ),
)
