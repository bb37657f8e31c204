"""What training leaves: models, their parameters, their course, how good they are."""

from __future__ import annotations

from fm_spark.tables.contracts.check import FROM_0, FROM_1, SHARE, Check
from fm_spark.tables.contracts.contract import MODEL_VERSION, RUN_ID, Column, Contract
from fm_spark.tables.contracts.example import MODEL, RUN, Example

_PURPOSES = Check(one_of=("publish", "evaluation"))
_LOSSES = Check(one_of=("softmax", "squared", "logistic", "bpr"))
_VALIDATED = "on the validation part, after the epoch's last round"
_STAGES = Check(one_of=("tune", "evaluation", "publish"))
_SPLITS = Check(one_of=("user_time", "global_time", "random"))

FM_PARAMETERS = Contract(
    "fm_parameters",
    "The learnt parameters of every model: one row per feature",
    (
        MODEL_VERSION,
        Column("field", "string", "field of the feature, as in vocabulary"),
        Column("value", "string", "value of the feature, as in vocabulary"),
        Column("feature", "int", "feature index", check=FROM_0),
        Column("bias", "double", "linear weight w of the feature"),
        Column("factors", "array<float>", "factor vector v of the feature, length k"),
        Column("count", "bigint", "training events that have the feature", check=FROM_0),
        RUN_ID,
    ),
    key=("model_version", "feature"),
    mode="by_run",
    order=("model_version", "feature"),
    example=Example(
        "The vectors of the items",
        ("value", "bias", "factors"),
        (("model_version", "=", MODEL), ("field", "=", "item")),
        "feature",
    ),
)

FM_MODEL = Contract(
    "fm_model",
    "One row per trained model: what it was trained on, how, and how good it is",
    (
        MODEL_VERSION,
        RUN_ID,
        Column("created_at", "timestamp", "when training ended, UTC"),
        Column(
            "purpose",
            "string",
            "publish (serves readers) or evaluation (has not seen the test part)",
            check=_PURPOSES,
        ),
        Column("loss", "string", "the training loss", check=_LOSSES),
        Column("k", "int", "number of factors", check=FROM_0),
        Column("w0", "double", "global bias"),
        Column("epochs", "int", "epochs trained", check=FROM_0),
        Column("decays", "array<double>", "time scales of the history bags", check=SHARE),
        Column("hyperparameters", "map<string,string>", "every setting in force, with auto resolved"),
        Column("metrics", "map<string,double>", "validation metrics that chose the settings"),
        Column("input_versions", "map<string,bigint>", "Delta version of every table that training read"),
        Column("library_versions", "map<string,string>", "Python, Spark, numpy, numba, ... that trained it"),
        Column("config", "string", "the effective configuration, JSON"),
    ),
    key=("model_version",),
    mode="by_run",
    example=Example("How a model was trained", ("loss", "k", "epochs"), (("model_version", "=", MODEL),), "loss"),
)

TRAINING_HISTORY = Contract(
    "training_history",
    "One row per round of training",
    (
        MODEL_VERSION,
        RUN_ID,
        Column(
            "stage",
            "string",
            "tune, evaluation or publish: which fit of the run",
            check=_STAGES,
        ),
        Column("candidate", "int", "which candidate setting (0 when only one is tried)", check=FROM_0),
        Column("epoch", "int", "from 1", check=FROM_1),
        Column("round", "int", "from 1, within the epoch", check=FROM_1),
        Column(
            "loss", "double", "mean training loss of the round; nats an event, with loss squared half a squared error"
        ),
        Column("ndcg_at_10", "double", _VALIDATED, nullable=True, check=SHARE),
        Column("recall_at_20", "double", _VALIDATED, nullable=True, check=SHARE),
        Column("rmse", "double", "the same, with loss squared", nullable=True, check=FROM_0),
        Column("log_loss", "double", "the same, with loss logistic", nullable=True, check=FROM_0),
        Column("seconds_broadcast", "double", "writing and sending the parameters, seconds", check=FROM_0),
        Column("seconds_compute", "double", "kernel time summed over the blocks, seconds", check=FROM_0),
        Column("seconds_aggregate", "double", "the round's Spark job: kernels, transport, sums, seconds", check=FROM_0),
        Column("seconds_step", "double", "applying the sum on the driver, seconds", check=FROM_0),
        Column("bytes_broadcast", "bigint", "size of the broadcast parameters, bytes", check=FROM_0),
        Column("bytes_aggregated", "bigint", "size of what the tasks returned, bytes", check=FROM_0),
        Column("events", "bigint", "events of the round by weight; softmax and bpr: the positive ones", check=FROM_0),
    ),
    key=("model_version", "stage", "candidate", "epoch", "round"),
    mode="by_run",
    example=Example("How the loss fell", ("epoch", "loss"), (("run_id", "=", RUN), ("stage", "=", "publish")), "epoch"),
)

CHECKPOINTS = Contract(
    "checkpoints",
    "Training that is not finished: its last two states by run, gone when the models are saved; not for readers",
    (
        RUN_ID,
        Column("slot", "int", "0 or 1: number modulo 2", check=SHARE),
        Column("number", "bigint", "which checkpoint of the run, from 1", check=FROM_1),
        Column("name", "string", "meta (JSON) or the name of an array"),
        Column("part", "int", "which part of the array, from 0; a part has 32 MiB at most", check=FROM_0),
        Column("dtype", "string", "numpy's type string, little-endian, for example <f4"),
        Column("shape", "array<bigint>", "shape of the whole array, C order", check=FROM_0),
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
        Column(
            "ranker",
            "string",
            "fm or popularity; for predictions fm, user_item_mean, global_mean or constant; for star classes "
            "knn_class, majority_class and, with loss squared, fm",
        ),
        Column(
            "metric",
            "string",
            "ndcg_at_10, recall_at_20, precision_at_10, map_at_10, mrr, hit_rate_at_10, coverage_at_10; of predictions "
            "rmse, mae (loss squared), log_loss, auc, calibration_error (logistic), predicted_events (their "
            "number); of star classes, when there are ratings, accuracy and macro_f1",
        ),
        Column(
            "value",
            "double",
            "mean over users (coverage: share of the catalogue); of predictions over events",
        ),
        Column(
            "split",
            "string",
            "how the test part was cut: user_time, global_time or random",
            check=_SPLITS,
        ),
        Column("users", "bigint", "users in the mean", check=FROM_0),
        Column("users_without_truth", "bigint", "users dropped because nothing of theirs is held out", check=FROM_0),
        Column("items", "bigint", "items ranked", check=FROM_0),
    ),
    key=("run_id", "ranker", "metric"),
    mode="by_run",
    example=Example(
        "The machine beside the baselines",
        ("ranker", "value"),
        (("run_id", "=", RUN), ("metric", "=", "ndcg_at_10")),
        "ranker",
    ),
)
