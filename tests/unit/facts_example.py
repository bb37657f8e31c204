"""A made-up run for the tests of the report, with texts that a careless renderer would trip over."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from fm_spark.report.facts import (
    ClusterFacts,
    ClusterLine,
    Curve,
    DataFacts,
    ItemFacts,
    LikedItem,
    MetricFacts,
    Neighbour,
    QualityCheck,
    Recommended,
    RunFacts,
    SimilarFacts,
    TableFacts,
    TrainingFacts,
    UserLists,
)

LONG = "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb, with Everything that Came After (1964)"
TITLES = ["[REC] (2007)", "<script>alert('x')</script> & Co (1999)", "$9.99 and $1 (2008)", "Amélie (2001)", LONG]
RUN_ID = "20261123T172144Z-3f9a"


def example_facts() -> RunFacts:
    """The facts of the made-up run."""
    day = datetime(2018, 9, 24, 12, 30, tzinfo=UTC)
    user = UserLists(
        user_id="42", events=1234, liked_events=56,
        liked=[LikedItem(title, day, 4.5) for title in TITLES],
        top=[Recommended(rank, title, 9.5 - rank) for rank, title in enumerate(TITLES, start=1)],
    )  # fmt: skip
    clusters = [
        ClusterFacts(
            number,
            30 - number,
            f"Horror & [{number}] $x$",
            [("Horror", 3.21)],
            [("<i>zombies</i>", 9.0)],
            TITLES,
            [("1980s", 1.5)],
            0.714,
        )
        for number in range(3)
    ]
    rng = np.random.default_rng(0)
    return RunFacts(
        run_id=RUN_ID,
        model_version=f"fm-{RUN_ID}",
        published_at=day,
        root="/data/warehouse",
        data=DataFacts(
            users=610, items=9724, catalogue=9742, events=100836, positives=48580, test_events=8000,
            first=day, last=day,
            quality=[
                QualityCheck("events", "exact_duplicates", 7, "dropped", "rows that repeat another one"),
                QualityCheck("events", "missing_items", 0, "dropped", "never shown"),
                QualityCheck("events", "rows_read", 100836, "counted", "never shown either"),
            ],
        ),
        metrics=MetricFacts(
            {
                "ndcg_at_10": {"fm": 0.15, "popularity": 0.1},
                "hit_rate_at_10": {"fm": 0.5},
                "new_one": {"popularity": 0.0},
            },
            split="user_time", users=582, users_without_truth=28, items=9742,
        ),
        training=TrainingFacts(
            epochs={"evaluation": 3, "publish": 4}, k=64, decays=[0.8],
            settings={"k": "64", "learning_rate": "0.1", "not_shown": "1"},
            validation={"ndcg_at_10": 0.167, "mrr": 0.3},
            curves=[
                Curve("evaluation", 0, [1, 2, 3], [6.0, 5.0, 4.5], [0.1, 0.167, 0.15], [0.2, 0.3, 0.3]),
                Curve("publish", 0, [1, 2, 3, 4], [6.0, 5.0, 4.5, 4.4], [None] * 4, [None] * 4),
            ],
        ),
        users=[user],
        clusters=clusters,
        cluster_labels={**{c.cluster_id: c.label for c in clusters}, 3: "Hidden"},
        tables=[TableFacts("top_n", 6100, 3, "/data/warehouse/" + "deep/" * 15 + "top_n")],
        items=ItemFacts(
            count=np.arange(50), listed=np.arange(50) % 3,
            map_vectors=rng.normal(size=(40, 8)).astype(np.float32), map_clusters=np.arange(40) % 4,
        ),
        cluster_line=ClusterLine("before & after", 0.8312, 21, 3, 2),
        seconds={"events": 12.3, "train": 30.0, "all steps": 40.1},
        similar=[SimilarFacts(TITLES[1], [Neighbour(title, 0.87) for title in TITLES])],
        genre_shares={"random": 0.3512, "co_occurrence": 0.62, "model": 0.8},
    )  # fmt: skip
