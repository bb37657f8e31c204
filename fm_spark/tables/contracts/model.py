"""What training leaves: models, their parameters, their course, how good they are."""

from __future__ import annotations

from fm_spark.tables.contracts.contract import MODEL_VERSION, RUN_ID, Column, Contract

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
        Column("value", "double", "mean over users (coverage: share of the catalogue); of predictions over events"),
        Column("split", "string", "how the test part was cut: user_time, global_time or random"),
        Column("users", "bigint", "users in the mean"),
        Column("users_without_truth", "bigint", "users dropped because nothing of theirs is held out"),
        Column("items", "bigint", "items ranked"),
    ),
    key=("run_id", "ranker", "metric"),
    mode="by_run",
)
