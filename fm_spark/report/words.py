"""How the report names and formats things; shared by the terminal and the HTML form."""

from __future__ import annotations

from fm_spark.report.facts import ClusterFacts, MetricFacts, RunFacts

METRIC_NAMES = {
    "ndcg_at_10": "NDCG@10",
    "recall_at_20": "Recall@20",
    "precision_at_10": "Precision@10",
    "map_at_10": "MAP@10",
    "mrr": "MRR",
    "hit_rate_at_10": "Hit rate@10",
    "coverage_at_10": "Catalogue coverage@10",
}
PREDICTED = "predicted_events"
PREDICTION_NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "log_loss": "Log loss",
    "auc": "AUC",
    "calibration_error": "Calibration error",
}
CLASS_METRICS = ("accuracy", "macro_f1")
"""Of star classes; in ``evaluation`` alone."""
_PREDICTORS = {"user_item_mean": "user + item mean", "global_mean": "mean", "constant": "share of likes"}
SETTINGS = (
    "k",
    "user",
    "bag",
    "decays",
    "target_decay",
    "learning_rate",
    "learning_rate_decay",
    "bias_rate",
    "l2",
    "l2_bag",
    "l2_bias",
    "average_from",
    "batch_size",
    "negatives",
    "blocks",
    "rounds",
)
"""The settings that are shown, in this order; fm_model holds all of them."""
_CHOOSERS = {"co_occurrence": "neighbours by co-occurrence", "random": "random pairs"}
_VALIDATION = ("ndcg_at_10", "recall_at_20", *PREDICTION_NAMES)
_SPLITS = {
    "user_time": "each user's last positives are held out",
    "global_time": "everything after one point in time is held out",
    "random": "random positives of each user are held out",
}


def metric_rows(metrics: MetricFacts) -> list[tuple[str, float | None, float | None, str]]:
    """Rows (name, fm, popularity, ratio) in the usual order of metrics; metrics without a name here come last."""
    known = [name for name in METRIC_NAMES if name in metrics.values]
    other = [name for name in metrics.values if name not in METRIC_NAMES]
    rows = []
    for name in known + other:
        fm, popularity = metrics.values[name].get("fm"), metrics.values[name].get("popularity")
        ratio = f"{fm / popularity:.2f}x" if fm is not None and popularity else "-"
        rows.append((METRIC_NAMES.get(name, name), fm, popularity, ratio))
    return rows


def prediction_table(metrics: MetricFacts) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the predictions beside those of the baselines; no rows for a machine that only ranks."""
    said = {name for of_metric in metrics.predictions.values() for name in of_metric}
    others = [name for name in _PREDICTORS if name in said]
    rows = [
        [title, *(_number(metrics.predictions[name].get(one)) for one in ("fm", *others))]
        for name, title in PREDICTION_NAMES.items()
        if name in metrics.predictions
    ]
    return ["Metric", "fm_spark", *(_PREDICTORS[name] for name in others)], rows


def prediction_note(metrics: MetricFacts) -> str:
    """What the errors are means over."""
    return (
        f"Mean over the {metrics.predicted:,} events of {metrics.predicted_users:,} users that are not in the "
        "training part, liked or not."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def metric_note(metrics: MetricFacts) -> str:
    """What the metrics are means over."""
    how = _SPLITS.get(metrics.split, metrics.split)
    return (
        f"Mean over {metrics.users:,} users, all {metrics.items:,} items ranked, what a user already has left out. "
        f"Split {metrics.split}: {how}; {metrics.users_without_truth:,} users have nothing held out and do not count."
    )


def data_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """The counts of the input as (what, how much)."""
    data = facts.data
    span = f"{data.first:%Y-%m-%d} to {data.last:%Y-%m-%d}" if data.first and data.last else "-"
    return [
        ("Users", f"{data.users:,}"),
        ("Items with an event", f"{data.items:,} of {data.catalogue:,}"),
        ("Events", f"{data.events:,} ({span})"),
        ("Liked", f"{data.positives:,} ({share(data.positives, data.events)})"),
        ("Held out for the test", f"{data.test_events:,} liked events"),
        ("Density", f"{data.density:.2%} of users x items"),
    ]


def quality_rows(facts: RunFacts) -> list[tuple[str, str, str]]:
    """What was found wrong with the input, as (rows, what was done, what was found); plain counts are left out."""
    return [
        (f"{check.rows:,}", check.action, check.detail or check.check)
        for check in facts.data.quality
        if check.rows and check.action != "counted"
    ]


def clusters_title(facts: RunFacts) -> str:
    """The heading above the shown clusters."""
    return (
        f"Clusters of similar items ({len(facts.clusters)} of {len(facts.cluster_labels)}, those of well-known items)"
    )


def similar_note(facts: RunFacts) -> str:
    """How often neighbours have a genre in common; empty when nobody knows genres."""
    model = facts.genre_shares.get("model")
    if model is None:
        return ""
    shares = facts.genre_shares
    beside = ", ".join(f"{title} {shares[name]:.0%}" for name, title in _CHOOSERS.items() if name in shares)
    return f"{model:.0%} of the neighbours have a genre in common with the item{f' ({beside})' if beside else ''}."


def cluster_size(cluster: ClusterFacts) -> str:
    """What stands beside a cluster's label."""
    alike = "" if cluster.cohesion is None else f", cohesion {cluster.cohesion:.2f}"
    return f"cluster {cluster.cluster_id}, {cluster.size:,} items{alike}"


def cluster_traits(cluster: ClusterFacts) -> str:
    """What sets a cluster apart."""
    return "; ".join(lifts(pairs) for pairs in (cluster.genres, cluster.decades, cluster.tags) if pairs)


def clusters_note(facts: RunFacts) -> str:
    """How the clusters go on from those of an earlier run; empty for the first one."""
    line = facts.cluster_line
    if line is None:
        return ""
    text = f"Ids go on from run {line.matched_run_id}: {line.kept:,} kept, {line.born:,} new, {line.dead:,} ended."
    if line.stability is None:
        return text
    return (
        f"{text} Stability {line.stability:.2f} (adjusted Rand index over the items of both runs: 1 is the same "
        "clusters, 0 is chance)."
    )


def setting_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """The settings in force as (name, value)."""
    return [(name, facts.training.settings[name]) for name in SETTINGS if name in facts.training.settings]


def training_note(facts: RunFacts) -> str:
    """Which fits there are, how long they ran and how good the settings were on the validation part."""
    fits = [
        f"{epochs} epochs for {'the published model' if purpose == 'publish' else 'the measured model'}"
        for purpose, epochs in facts.training.epochs.items()
    ]
    measured = facts.training.validation
    names = {**METRIC_NAMES, **PREDICTION_NAMES}
    validation = [f"{names[name]} {measured[name]:.4f}" for name in _VALIDATION if name in measured]
    text = f"Factorization machine with {facts.training.k} factors: {', '.join(fits)}."
    return f"{text} Validation: {', '.join(validation)}." if validation else text


def share(part: int, whole: int) -> str:
    """Percentage without decimals; ``-`` of nothing."""
    return f"{part / whole:.0%}" if whole else "-"


def lifts(pairs: list[tuple[str, float]]) -> str:
    """Names with their lifts, for example ``Horror x3.2, Thriller x1.8``."""
    return ", ".join(f"{name} x{lift:.1f}" for name, lift in pairs)
