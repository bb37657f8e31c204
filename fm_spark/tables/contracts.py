"""The tables that fm_spark writes, declared as data: name, columns, types, comments and key.

Everything that needs to know a table (the writer, the reader, the documentation, the tests) reads it here.
Types are Spark SQL's. ``id`` stands for the type of the input's identifiers, bigint or string, kept as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ID = "id"
Mode = Literal["replace", "append", "by_run"]


@dataclass(frozen=True)
class Column:
    """One column: Spark SQL type (or ``id``), meaning, and whether it may be null."""

    name: str
    type: str
    comment: str
    nullable: bool = False


@dataclass(frozen=True)
class Contract:
    """One table.

    Attributes:
        mode: ``replace`` (each run replaces the content), ``append`` (rows are only ever added), or ``by_run``
            (a run replaces the rows with its own run_id and touches no others).
        key: the columns that identify a row.
        order: the columns by which rows are laid out in the files; usually the look-up key.
        partitions: the columns whose values make the folders; a condition on them alone reads no file.
        kept_hours: how long a file stays that the newest version does not need; 0 = Delta's default, a week.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    mode: Mode
    order: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    kept_hours: int = 0

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]


RUN_ID = Column("run_id", "string", "the run that wrote the row")
MODEL_VERSION = Column("model_version", "string", "the model that the row comes from; key of fm_model")

EVENTS = Contract(
    "events",
    "One row per interaction, in the order of each user's history, with the features that do not change over time",
    (
        Column("user_id", ID, "the customer, as in the input"),
        Column("item_id", ID, "the item, as in the input"),
        Column("time", "timestamp", "when, UTC"),
        Column("value", "double", "rating or strength, in the input's unit; 1 without a value column"),
        Column("label", "double", "1 when liked (value >= events.positive_threshold), else 0"),
        Column("weight", "double", "how many events this one counts for in training; 1 unless given"),
        Column(
            "split",
            "string",
            "train (known before the test starts), test (held-out positive) or unused (later, not tested)",
        ),
        Column("position", "int", "0-based place in the user's history, by time, then item id"),
        Column("item_feature", "int", "feature index of the item (field item of the vocabulary)"),
        Column(
            "indices",
            "array<int>",
            "feature indices of the static fields (item, genres), ascending; key into vocabulary",
        ),
        Column("values", "array<float>", "feature values, parallel to indices"),
        RUN_ID,
    ),
    key=("user_id", "item_id"),
    mode="replace",
    order=("user_id", "position"),
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
        Column("feature", "int", "feature index, dense from 0"),
        Column("run_id", "string", "the run that added the row"),
    ),
    key=("field", "value"),
    mode="append",
    order=("feature",),
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
        Column("item_feature", "int", "feature index of the item (field item of the vocabulary)"),
        Column("count", "bigint", "events of the item, all splits"),
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
)

DATA_QUALITY = Contract(
    "data_quality",
    "What was read, what was found wrong and what was done about it; one row per check",
    (
        RUN_ID,
        Column("step", "string", "the job that checked: events, train, recommend, ..."),
        Column("check", "string", "what was looked for, for example exact_duplicates"),
        Column("rows", "bigint", "how many rows were found"),
        Column("action", "string", "kept, dropped or counted"),
        Column("detail", "string", "what the check means, in one sentence"),
        Column("examples", "array<string>", "up to five of the rows found"),
    ),
    key=("run_id", "step", "check"),
    mode="by_run",
)

FM_PARAMETERS = Contract(
    "fm_parameters",
    "The learnt parameters of every model: one row per feature",
    (
        MODEL_VERSION,
        Column("field", "string", "field of the feature, as in vocabulary"),
        Column("value", "string", "value of the feature, as in vocabulary"),
        Column("feature", "int", "feature index"),
        Column("bias", "double", "linear weight w of the feature"),
        Column("factors", "array<float>", "factor vector v of the feature, length k"),
        Column("count", "bigint", "training events that have the feature"),
        RUN_ID,
    ),
    key=("model_version", "feature"),
    mode="by_run",
    order=("model_version", "feature"),
)

FM_MODEL = Contract(
    "fm_model",
    "One row per trained model: what it was trained on, how, and how good it is",
    (
        MODEL_VERSION,
        RUN_ID,
        Column("created_at", "timestamp", "when training ended, UTC"),
        Column("purpose", "string", "publish (serves readers) or evaluation (has not seen the test part)"),
        Column("loss", "string", "the training loss"),
        Column("k", "int", "number of factors"),
        Column("w0", "double", "global bias"),
        Column("epochs", "int", "epochs trained"),
        Column("decays", "array<double>", "time scales of the history bags"),
        Column("hyperparameters", "map<string,string>", "every setting in force, with auto resolved"),
        Column("metrics", "map<string,double>", "validation metrics that chose the settings"),
        Column("input_versions", "map<string,bigint>", "Delta version of every table that training read"),
        Column("library_versions", "map<string,string>", "Python, Spark, numpy, numba, ... that trained it"),
        Column("config", "string", "the effective configuration, JSON"),
    ),
    key=("model_version",),
    mode="by_run",
)

TRAINING_HISTORY = Contract(
    "training_history",
    "One row per round of training",
    (
        MODEL_VERSION,
        RUN_ID,
        Column("stage", "string", "tune, evaluation or publish: which fit of the run"),
        Column("candidate", "int", "which candidate setting (0 when only one is tried)"),
        Column("epoch", "int", "from 1"),
        Column("round", "int", "from 1, within the epoch"),
        Column(
            "loss", "double", "mean training loss of the round; nats an event, with loss squared half a squared error"
        ),
        Column("ndcg_at_10", "double", "on the validation part, after the epoch's last round", nullable=True),
        Column("recall_at_20", "double", "on the validation part, after the epoch's last round", nullable=True),
        Column("rmse", "double", "the same, with loss squared", nullable=True),
        Column("log_loss", "double", "the same, with loss logistic", nullable=True),
        Column("seconds_broadcast", "double", "writing and sending the parameters, seconds"),
        Column("seconds_compute", "double", "kernel time summed over the blocks, seconds"),
        Column("seconds_aggregate", "double", "the round's Spark job: kernels, transport and sums, seconds"),
        Column("seconds_step", "double", "applying the sum on the driver, seconds"),
        Column("bytes_broadcast", "bigint", "size of the broadcast parameters, bytes"),
        Column("bytes_aggregated", "bigint", "size of what the tasks returned, bytes"),
        Column("events", "bigint", "events of the round by weight; with softmax and bpr the positive ones"),
    ),
    key=("model_version", "stage", "candidate", "epoch", "round"),
    mode="by_run",
)

CHECKPOINTS = Contract(
    "checkpoints",
    "Training that is not finished: its last two states by run, gone when the models are saved; not for readers",
    (
        RUN_ID,
        Column("slot", "int", "0 or 1: number modulo 2"),
        Column("number", "bigint", "which checkpoint of the run, from 1"),
        Column("name", "string", "meta (JSON) or the name of an array"),
        Column("part", "int", "which part of the array, from 0; a part has 32 MiB at most"),
        Column("dtype", "string", "numpy's type string, little-endian, for example <f4"),
        Column("shape", "array<bigint>", "shape of the whole array, C order"),
        Column("payload", "binary", "the part's bytes"),
        Column("sha256", "string", "of the whole checkpoint, the same in all of its rows"),
        Column("saved_at", "timestamp", "when, UTC"),
    ),
    key=("run_id", "slot", "name", "part"),
    mode="by_run",
    order=("name", "part"),
    # replacing or removing a checkpoint reads no file, so that a damaged one is in nobody's way
    partitions=("run_id", "slot"),
    kept_hours=1,
)

EVALUATION = Contract(
    "evaluation",
    "Metrics on the held-out part, the machine beside baselines; one row per ranker and metric",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("ranker", "string", "fm or popularity; for predictions fm, user_item_mean, global_mean or constant"),
        Column(
            "metric",
            "string",
            "ndcg_at_10, recall_at_20, precision_at_10, map_at_10, mrr, hit_rate_at_10, coverage_at_10; of predictions "
            "rmse, mae (loss squared), log_loss, auc, calibration_error (logistic), predicted_events (their number)",
        ),
        Column("value", "double", "mean over users (coverage: share of the catalogue); of predictions over events"),
        Column("split", "string", "how the test part was cut: user_time, global_time or random"),
        Column("users", "bigint", "users in the mean"),
        Column("users_without_truth", "bigint", "users dropped because nothing of theirs is held out"),
        Column("items", "bigint", "items ranked"),
    ),
    key=("run_id", "ranker", "metric"),
    mode="by_run",
)

TOP_N = Contract(
    "top_n",
    "The best items of every user: one row per user and rank",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("user_id", ID, "the customer, as in the input"),
        Column("rank", "int", "1 is best; dense"),
        Column("item_id", ID, "the recommended item, as in the input"),
        Column("title", "string", "its title"),
        Column("score", "double", "the machine's score; comparable within a user only"),
        Column("source", "string", "model: scored by the machine from the user's history"),
    ),
    key=("run_id", "user_id", "rank"),
    mode="by_run",
    order=("user_id", "rank"),
)

ITEM_CLUSTERS = Contract(
    "item_clusters",
    "Which cluster every item belongs to",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("item_id", ID, "the item, as in the input"),
        Column("title", "string", "its title"),
        Column("cluster_id", "int", "from 0; key of cluster_profiles"),
        Column(
            "distance",
            "double",
            "Euclidean distance to the cluster's centre, 0 to 2, of the normalised vector that assigned the item "
            "(that of a rare item is blended with what its genres suggest)",
        ),
        Column("is_medoid", "boolean", "true for the item nearest to the centre (one per cluster)"),
    ),
    key=("run_id", "item_id"),
    mode="by_run",
    order=("cluster_id", "item_id"),
)

CLUSTER_PROFILES = Contract(
    "cluster_profiles",
    "What every cluster is about",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("cluster_id", "int", "from 0"),
        Column("size", "bigint", "items in the cluster"),
        Column("label", "string", "a name made from the genres, tags and exemplars"),
        Column(
            "top_genres",
            "array<struct<name:string,share:double,lift:double>>",
            "what sets the cluster apart, best first; lift = share in the cluster / share in the catalogue",
        ),
        Column(
            "top_tags",
            "array<struct<name:string,share:double,lift:double>>",
            "tags by lift; empty when the input has none",
        ),
        Column(
            "exemplars",
            "array<struct<item_id:string,title:string,distance:double,count:bigint>>",
            "five items that are close to the centre and well known; item_id as text",
        ),
    ),
    key=("run_id", "cluster_id"),
    mode="by_run",
)

PUBLICATIONS = Contract(
    "publications",
    "One row per published run: the table versions that belong together",
    (
        RUN_ID,
        MODEL_VERSION,
        Column("published_at", "timestamp", "when, UTC"),
        Column("tables", "map<string,bigint>", "Delta version of every table of the run"),
        Column("metrics", "map<string,double>", "test metrics of the run, fm and popularity, as ranker.metric"),
    ),
    key=("run_id",),
    mode="by_run",
)

# the tables that a run hands to readers; CHECKPOINTS is not one of them
ALL: tuple[Contract, ...] = (
    EVENTS, VOCABULARY, ITEMS, USERS, DATA_QUALITY, FM_PARAMETERS, FM_MODEL, TRAINING_HISTORY, EVALUATION, TOP_N,
    ITEM_CLUSTERS, CLUSTER_PROFILES, PUBLICATIONS,
)  # fmt: skip
