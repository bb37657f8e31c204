"""Times the job ``cluster`` at the shape of MovieLens 25M: items of a made-up model grouped, described and written.

    python -m benchmarks.clusters [--items 62423] [--k 64] [--spark-kmeans 0] [--driver-only]

Prints seconds by part of the whole job on a Spark of two cores, twice: the first run numbers its clusters, the second
one, of a slightly different model, is matched to it. With ``--driver-only`` what the driver computes is timed alone,
without Spark, in processor seconds, so that other load on the machine counts little. With ``--spark-kmeans K`` Spark
ML's k-means with K clusters is timed on the same vectors, beside ours. The model is random vectors around planted
centres; times depend on its shape.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time

# before numpy is loaded: the jobs' own setting
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from fm_spark.config import Config, load_config
from fm_spark.events.catalogue import Catalogue
from fm_spark.ranking.cluster_matching import Earlier, earlier_places
from fm_spark.ranking.kmeans import kmeans, nearest, normalised
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables import contracts as C
from fm_spark.tables.published import Publication
from fm_spark.tables.store import TableStore
from jobs import cluster

_PLANTED = 40
_GENRES = [f"Genre {i}" for i in range(18)]
_TAGS = [f"tag {i}" for i in range(1000)]
_PARTS = {
    "reading": ("load_inputs", "earlier_clusters", "item_tags"),
    "k-means, silhouette": ("cluster_items",),
    "ids": ("match_clusters",),
    "profiles": ("profiles",),
    "writing": ("side_by_side",),
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("items", 62_423), ("k", 64), ("spark-kmeans", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--driver-only", action="store_true")
    a = parser.parse_args()
    config, vectors = load_config(), _vectors(a.items, a.k)
    print(f"{a.items:,} items, k = {a.k}, clusters of {config.cluster.k_candidates}")
    if a.driver_only:
        _driver_only(config, vectors)
        return
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(local_submit_args("local[2]", [], {"spark.driver.memory": "4g"}))
    spark = open_session("benchmark", config)
    with tempfile.TemporaryDirectory() as root:
        config = replace(config, tables=replace(config.tables, root=root))
        store = TableStore(spark, root)
        _write_items(store, a.items)
        for number, run_id in enumerate(("first", "second")):
            _write_model(store, run_id, vectors if number == 0 else _moved(vectors))
            _report(run_id, store, _job(spark, config, run_id))
    if a.spark_kmeans:
        _compare(spark, normalised(vectors), a.spark_kmeans)
    spark.stop()


def _driver_only(config: Config, vectors: np.ndarray) -> None:
    items = _items(len(vectors))
    place = np.arange(len(items), dtype=np.int32)
    of_all = Catalogue(
        items["item_id"].to_numpy(), items["title"].to_numpy(), list(items["genres"]), items["count"].to_numpy(), place,
        place, list(items["year"]), [{}] * len(items),
    )  # fmt: skip
    earlier = None
    for run_id, moved in (("first", vectors), ("second", _moved(vectors))):
        with _timed(time.process_time) as seconds:
            before = None if earlier is None else earlier_places(of_all.item_id, earlier)
            clusters = cluster.cluster_items(moved, of_all.count, of_all.genres, config.cluster, before)
            matched = cluster.match_clusters(of_all.item_id, clusters.cluster, earlier)
            cluster.profiles(of_all, list(items["tags"]), clusters, matched.ids)
        stability = "" if matched.stability is None else f", stability {matched.stability:.3f}"
        print(f"\n{run_id} run: {len(matched.ids)} clusters, silhouette {clusters.silhouette:.3f}{stability}")
        for part, of_part in seconds.items():
            if of_part:
                print(f"{part:<22}{of_part:>8.2f} s")
        earlier = Earlier(run_id, of_all.item_id, matched.ids[clusters.cluster], matched.next_id)


def _job(spark: SparkSession, config: Config, run_id: str) -> tuple[cluster.ClusterResult, dict[str, float], float]:
    begin = time.monotonic()
    with _timed() as seconds:
        result = cluster.run(spark, replace(config, run=replace(config.run, id=run_id)))
    return result, seconds, time.monotonic() - begin


@contextmanager
def _timed(clock: Callable[[], float] = time.monotonic) -> Iterator[dict[str, float]]:
    """Seconds by part of the job, which runs inside the ``with`` block."""
    seconds = dict.fromkeys(_PARTS, 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begin = clock()
            try:
                return function(*given, **named)
            finally:
                seconds[part] += clock() - begin

        return run

    names = {name: part for part, of_part in _PARTS.items() for name in of_part}
    with mock.patch.multiple(
        cluster, **{name: timed(part, getattr(cluster, name)) for name, part in names.items()}
    ):  # fmt: skip
        yield seconds


def _report(run_id: str, store: TableStore, made: tuple[cluster.ClusterResult, dict[str, float], float]) -> None:
    result, seconds, whole = made
    stability = "" if result.stability is None else f", stability {result.stability:.3f}"
    print(f"\n{run_id} run: {len(result.profiles)} clusters, silhouette {result.silhouette:.3f}{stability}")
    for part, of_part in seconds.items():
        print(f"{part:<22}{of_part:>8.1f} s")
    print(f"{'the job':<22}{whole:>8.1f} s", flush=True)
    row = Publication(1, run_id, result.model_version, datetime.now(UTC), result.versions, {})
    store.write(pd.DataFrame([asdict(row)]), C.PUBLICATIONS, run_id)


def _vectors(n_items: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    of = rng.integers(0, _PLANTED, n_items)
    return (rng.normal(0, 0.6, (_PLANTED, k))[of] + rng.normal(0, 0.5, (n_items, k))).astype(np.float32)


def _moved(vectors: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (vectors + rng.normal(0, 0.2, vectors.shape)).astype(np.float32)


def _items(n_items: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    genre, tag = rng.integers(0, len(_GENRES), (n_items, 2)), rng.integers(0, len(_TAGS), (n_items, 5))
    return pd.DataFrame(
        {
            "item_id": np.arange(n_items), "title": [f"Film {i} ({1930 + i % 90})" for i in range(n_items)],
            "genres": [sorted({_GENRES[g] for g in row}) for row in genre], "year": 1930 + np.arange(n_items) % 90,
            "tags": [sorted({_TAGS[t] for t in row}) for row in tag], "item_feature": np.arange(n_items),
            # as long a tail as MovieLens has: about half of the items have fewer than 5 events
            "count": (200_000 / np.arange(1, n_items + 1) ** 1.0).astype(np.int64), "attributes": [{}] * n_items,
            "run_id": "first",
        }
    )  # fmt: skip


def _write_items(store: TableStore, n_items: int) -> None:
    store.write(_items(n_items), C.ITEMS, "first")
    event = {
        "user_id": 1, "item_id": 0, "time": pd.Timestamp("2020-01-01", tz="UTC"), "value": 5.0, "label": 1.0,
        "weight": 1.0, "split": "train", "position": 0, "item_feature": 0, "indices": [0], "values": [1.0],
        "run_id": "first",
    }  # fmt: skip
    store.write(pd.DataFrame([event]), C.EVENTS, "first")


def _write_model(store: TableStore, run_id: str, vectors: np.ndarray) -> None:
    n_items, k = vectors.shape
    own = {"run_id": run_id, "model_version": f"fm-{run_id}"}
    for field in ("item", "history_liked_0.5", "history_not_liked_0.5"):
        rows = pd.DataFrame(
            {
                "field": field, "value": [str(i) for i in range(n_items)],
                "feature": np.arange(n_items), "bias": 0.0, "factors": list(vectors), "count": 1, **own,
            }
        )  # fmt: skip
        store.write(rows, C.FM_PARAMETERS, run_id, only={"field": field})
    model = {
        **own, "created_at": pd.Timestamp(datetime.now(UTC)), "purpose": "publish", "loss": "softmax", "k": k,
        "w0": 0.0, "epochs": 1, "decays": [0.5], "hyperparameters": {}, "metrics": {},
        "input_versions": {"events": 1, "items": 1}, "library_versions": {}, "config": "{}",
    }  # fmt: skip
    store.write(pd.DataFrame([model]), C.FM_MODEL, run_id)


def _compare(spark: SparkSession, vectors: np.ndarray, n_clusters: int) -> None:
    """Spark ML's k-means beside ours on the same vectors, the same number of steps at most."""
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.functions import array_to_vector

    rows = spark.createDataFrame(pd.DataFrame({"row": np.arange(len(vectors)), "features": list(vectors)}))
    ordered = rows.coalesce(1).sortWithinPartitions("row")
    frame = ordered.select(array_to_vector("features").alias("features")).cache()
    frame.count()
    print(f"\n{n_clusters} clusters of all items, 50 steps at most")
    for name, fit in (
        ("Spark ML", lambda: np.array(KMeans(k=n_clusters, maxIter=50, seed=1).fit(frame).clusterCenters())),
        ("fm_spark, 5 starts", lambda: kmeans(vectors, n_clusters, 50, seed=1)),
    ):
        begin = time.monotonic()
        centres = fit()
        seconds = time.monotonic() - begin
        print(f"{name:<22}{seconds:>8.1f} s   squared distances {(nearest(vectors, centres)[1] ** 2).sum():,.0f}")


if __name__ == "__main__":
    main()
