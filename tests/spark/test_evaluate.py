from __future__ import annotations

import math
from collections import Counter

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from taste_run import ITEMS, N_USERS, RUN, expected_ranking, histories, split

from fm_spark.config import Config
from fm_spark.core.class_metrics import class_metrics
from fm_spark.errors import InputError
from fm_spark.evaluation import classes
from fm_spark.evaluation import evaluate as evaluation
from fm_spark.evaluation.classes import later_classes
from fm_spark.ranking.inputs import load_inputs
from fm_spark.tables.contracts import EVENTS
from fm_spark.tables.runs import EVALUATION
from fm_spark.tables.store import TableStore
from jobs import evaluate


def train_part(user: int) -> list[int]:
    return [item for position, item in enumerate(histories()[user]) if split(user, position) == "train"]


def popular_ranking(user: int) -> list[int]:
    likes = Counter(item for u in histories() for item in train_part(u))
    return sorted(set(ITEMS) - set(train_part(user)), key=lambda item: (-likes[item], item))


def slow_metrics(rankings: dict[int, list[int]]) -> dict[str, float]:
    """One held-out item a user: its rank gives every metric."""
    ranks = [ranking.index(histories()[user][5]) + 1 for user, ranking in rankings.items()]
    in_ten = [rank <= 10 for rank in ranks]
    return {
        "ndcg_at_10": sum(1 / math.log2(r + 1) for r in ranks if r <= 10) / len(ranks),
        "recall_at_20": sum(r <= 20 for r in ranks) / len(ranks),
        "precision_at_10": sum(in_ten) / 10 / len(ranks),
        "map_at_10": sum(1 / r for r in ranks if r <= 10) / len(ranks),
        "mrr": sum(1 / r for r in ranks) / len(ranks),
        "hit_rate_at_10": sum(in_ten) / len(ranks),
        "coverage_at_10": len({item for ranking in rankings.values() for item in ranking[:10]}) / len(ITEMS),
    }


def test_metrics_of_machine_and_popularity(spark: SparkSession, taste: Config) -> None:
    result = evaluate.run(spark, taste)
    by_machine = {u: expected_ranking(train_part(u), hidden=train_part(u)) for u in range(N_USERS)}
    by_count = {u: popular_ranking(u) for u in range(N_USERS)}
    assert result.metrics["fm"] == pytest.approx(slow_metrics(by_machine), abs=1e-9)
    assert result.metrics["popularity"] == pytest.approx(slow_metrics(by_count), abs=1e-9)
    assert (result.users, result.users_without_truth) == (N_USERS, 2)
    table = DeltaTable(f"{taste.tables.root}/evaluation").to_pandas()
    assert set(table["run_id"]) == {RUN}
    assert set(table["model_version"]) == {"fm-taste-eval"}
    assert set(table["split"]) == {"user_time"}
    assert set(table["items"]) == {len(ITEMS)}
    values = table[table["ranker"] == "fm"].set_index("metric")["value"].to_dict()
    assert values == result.metrics["fm"]


def test_same_bits_on_any_number_of_partitions(
    spark: SparkSession, taste: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = load_inputs(TableStore(spark, taste.tables.root), taste, EVALUATION)
    means = []
    for partitions in (1, 5):
        monkeypatch.setattr(evaluation, "partitions_for", lambda *_, n=partitions: n)
        sums = evaluation.rank_test_part(inputs.events, inputs.machine, inputs.catalogue)
        means.append({ranker: s.means() for ranker, s in sums.items()})
    assert means[0] == means[1]


def test_no_held_out_event_is_an_error(spark: SparkSession, taste: Config) -> None:
    store = TableStore(spark, taste.tables.root)
    untested = store.read(EVENTS).where(F.col("split") == "train").localCheckpoint()
    inputs = load_inputs(store, taste, EVALUATION)
    sums = evaluation.rank_test_part(untested, inputs.machine, inputs.catalogue)
    with pytest.raises(InputError, match="min_positives"):
        evaluate.evaluation_rows(inputs.model, sums, inputs.catalogue.n_items)


def test_classes_are_voted_by_training_events_alone(
    spark: SparkSession, taste: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of one taste are equally near, so the two smallest of the user's training items of that taste vote."""
    inputs = load_inputs(TableStore(spark, taste.tables.root), taste, EVALUATION)
    assert later_classes(inputs.events, inputs.machine, inputs.catalogue, 2) is None  # all values are equal
    rated = inputs.events.withColumn("value", 1.0 + F.col("item_id") % 3)

    def star(item: int) -> float:
        return 1.0 + item % 3

    truth = {u: histories()[u][5] for u in range(N_USERS)}
    voters = {u: sorted(train_part(u))[:2] for u in truth}
    said = {u: min(voters[u], key=lambda i: (-sum(star(j) == star(i) for j in voters[u]), star(i))) for u in truth}
    known = Counter(star(item) for u in histories() for item in train_part(u))
    usual = min(known, key=lambda value: (-known[value], value))
    for partitions in (1, 5):
        monkeypatch.setattr(classes, "partitions_for", lambda *_, n=partitions: n)
        found = later_classes(rated, inputs.machine, inputs.catalogue, 2)
        assert found is not None
        assert (found.users, found.users_without) == (N_USERS, 2)
        accuracy = {ranker: class_metrics(table)["accuracy"] for ranker, table in found.tables.items()}
        right = sum(star(said[u]) == star(item) for u, item in truth.items())
        assert accuracy == {
            "knn_class": pytest.approx(right / N_USERS),
            "majority_class": pytest.approx(sum(star(item) == usual for item in truth.values()) / N_USERS),
        }
