"""The planner's formulas against hand-computed cases, against the arrays that really travel, and what fits."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

from fm_spark.config import load_config
from fm_spark.core.combine import merge, on_grid
from fm_spark.core.event_cost import EventWorkload, event_rows
from fm_spark.core.gradient import Settings, Workspace, make_sampler
from fm_spark.core.local_steps import run_block
from fm_spark.core.parameters import init_parameters
from fm_spark.core.planner import MIB, Plan, plan, touched, zipf_counts
from fm_spark.core.ranker_cost import RankerWorkload, row_bytes, scanned_events, seen_share, touched_rows
from fm_spark.core.sequences import Sequences
from fm_spark.errors import CapacityError
from fm_spark.training.advice import recommended
from fm_spark.training.capacity import GIB, Limits, conf_size, free_memory, parse_size, shortfall
from fm_spark.training.planning import Cluster, counts_of_tables, overridden, plan_training
from fm_spark.training.resolve import DataSize

ML_25M = RankerWorkload(
    users=162_541, events=25_000_095, positives=12_500_000, items=62_423, side_features=20, k=64, fits=3, tasks=4,
    decays=(0.3, 0.8, 0.98), blocks=50, rounds=23, negatives=256, negatives_power=0.5, batch_size=1024, chunk_size=64,
    executors=1, cores=2,
)  # fmt: skip
PLENTY = Limits(True, 64 * GIB, None, 256 * GIB, None, None)
GIVEN = ["plan.users=162541", "plan.events=25000095", "plan.positives=12500000", "plan.items=62423"]


def test_touched_is_the_chance_that_some_user_of_the_item_is_in_the_part() -> None:
    assert touched(np.array([0.0, 1.0, 2.0]), 0.5) == pytest.approx([0.0, 0.5, 0.75])
    assert touched(np.array([0.0, 0.25, 3.0]), 1.0) == pytest.approx([0.0, 0.25, 1.0])


def test_an_event_is_seen_by_a_later_positive_in_the_window() -> None:
    three = replace(ML_25M, users=10, events=30, positives=30)
    assert seen_share(0.9, three) == pytest.approx(2 / 3)  # all liked: every event but the last one
    half = replace(three, positives=15)
    assert seen_share(0.9, half) == pytest.approx((0 + 1 / 2 + 3 / 4) / 3)
    # 1e-30 is below what float32 keeps: the window is one event
    assert seen_share(1e-30, half) == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)


def test_scanned_events_by_hand() -> None:
    # window of 0.8: 73 events; chunks of 64 positives hold 128 events; half of 1,000 events lie before
    assert scanned_events(0.8, 1280, 640, 1000.0, 64) == pytest.approx(1280 * (1 + 73 / 128))
    # histories of 64 events: half of them have a second chunk, which starts 32 events back
    assert scanned_events(0.98, 1280, 640, 64.0, 64) == pytest.approx(1280 * (1 + 0.5 * 32 / 128))
    assert scanned_events(0.8, 1280, 0, 1000.0, 64) == 0.0


def test_zipf_counts_keep_the_total_and_no_item_has_more_events_than_users() -> None:
    counts = zipf_counts(1_100, 3, 1_000)
    assert counts == pytest.approx([600, 300, 200])
    capped = zipf_counts(1_100, 3, 500)
    assert capped == pytest.approx([500, 360, 240])
    assert zipf_counts(10_000, 3, 500) == pytest.approx([500, 500, 500])


def test_rows_of_single_events_by_hand() -> None:
    w = EventWorkload(
        users=100, events=300, positives=150, items=3, side_features=2, context_features=4, k=8, blocks=1, rounds=2,
        fits=1, tasks=1, executors=1, cores=1, loss="squared", user=True, bag=True, negatives=1, negatives_power=0.5,
    )  # fmt: skip
    # half of the users in a round: 50 of them, items of 1, 2 and no events, 2 genres, 4 context rows
    counts = np.array([1.0, 2.0, 0.0])
    items = 0.5 + 0.75
    assert event_rows(w, counts, 1) == pytest.approx((50 + 2 * items + 6, 50 + items + 6 + 1))
    assert event_rows(replace(w, bag=False, user=False), counts, 1) == pytest.approx((items + 6, items + 6 + 1))
    # pairs: liked events are half of all, and 75 negatives of 3 items miss none
    assert event_rows(replace(w, loss="bpr", bag=False), counts, 1).factors == pytest.approx(50 + 3 + 6, rel=1e-4)


def test_an_ensemble_costs_as_often_as_it_has_machines() -> None:
    one, two = plan(ML_25M), plan(replace(ML_25M, machines=2))
    assert two.transport.aggregated == pytest.approx(2 * one.transport.aggregated, rel=1e-6)
    assert two.transport.broadcast == 2 * one.transport.broadcast
    assert two.seconds.compute == pytest.approx(2 * one.seconds.compute)
    assert one.memory.worker < two.memory.worker < 2 * one.memory.worker


def test_rows_by_hand() -> None:
    # one decay, everything liked, one part that is everything: each seen item in one history table, all items drawn
    w = replace(ML_25M, users=100, events=300, positives=300, items=3, decays=(0.9,), blocks=1, rounds=1)
    rows = touched_rows(w, np.array([200.0, 100.0, 0.0]), 1)
    assert rows.items == pytest.approx(3.0, rel=1e-4)
    assert rows.factors == pytest.approx(2.0 + 3.0, rel=1e-4)


@pytest.mark.parametrize("k", [1, 8, 64])
def test_row_bytes_are_those_of_the_arrays(k: int) -> None:
    parameters = init_parameters(1, np.ones(5, np.int64), k, 0.05, 1)
    total = _learn(parameters, _users(20, 5, 0), 1)
    wide, narrow = row_bytes(k)
    expected = len(total.factors.rows) * wide + len(total.bias.rows) * narrow
    assert total.nbytes() == pytest.approx(expected, rel=0.1, abs=8)


def test_the_broadcast_is_the_parameters() -> None:
    w = replace(ML_25M, items=7, users=50, events=200, positives=100, k=8)
    assert plan(w).transport.broadcast == init_parameters(3, np.ones(7, np.int64), 8, 0.05, 1).nbytes()
    assert plan(w).n_features == 7 * 7 + 20 + 8  # three decays twice and the items, genres, an unseen value a field
    assert plan(w).n_parameters == plan(w).n_features * 8 + 7 + 20


def test_predicted_rows_are_those_that_blocks_touch() -> None:
    n_items, blocks = 400, 6
    data = [_users(40, n_items, b) for b in range(blocks)]
    item, liked = (np.concatenate([getattr(s, name) for s in data]) for name in ("item", "liked"))
    w = replace(
        ML_25M, users=40 * blocks, events=len(item), positives=int(liked.sum()), items=n_items, k=4, decays=(0.5, 0.9),
        blocks=blocks, rounds=1, negatives=16, batch_size=32, tasks=2,
    )  # fmt: skip
    parameters = init_parameters(2, np.bincount(item[liked == 1], minlength=n_items), 4, 0.05, 1)
    one = [len(_learn(parameters, s, b).factors.rows) for b, s in enumerate(data)]
    counts = np.bincount(item, minlength=n_items).astype(float)
    assert touched_rows(w, counts, blocks).factors == pytest.approx(np.mean(one), rel=0.1)
    total = reduce(merge, [_learn(parameters, s, b) for b, s in enumerate(data)])
    assert total is not None
    assert touched_rows(w, counts, 1).factors == pytest.approx(len(total.factors.rows), rel=0.1)


def _users(n: int, n_items: int, seed: int) -> Sequences:
    rng = np.random.default_rng(seed)
    law = 1.0 / np.arange(1, n_items + 1)
    lengths = np.minimum(rng.integers(3, 40, n), n_items)
    item = np.concatenate([rng.choice(n_items, m, replace=False, p=law / law.sum()) for m in lengths]).astype(np.int32)
    liked = (rng.random(len(item)) < 0.5).astype(np.uint8)
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(np.arange(n), ptr, item, liked, np.ones(len(item), np.float32), np.zeros(len(item), np.uint8))


def _learn(parameters, sequences, seed):  # type: ignore[no-untyped-def]
    settings = Settings(
        (0.5, 0.9)[: (len(parameters.factors) // parameters.n_items - 1) // 2], 0.1, 0.05, 0.0, 32, 16, 0.3
    )
    sampler = make_sampler(np.bincount(sequences.item, minlength=parameters.n_items), 0.5)
    work = Workspace(parameters.factors.shape, parameters.n_items)
    return on_grid(run_block(parameters, work, sequences, sampler, settings, np.random.default_rng(seed)), parameters)


@pytest.mark.parametrize("name", ["k", "items"])
def test_the_cost_grows_with_k_and_items(name: str) -> None:
    def cost(made: Plan) -> list[float]:
        t, m = made.transport, made.memory
        return [
            made.n_parameters, t.broadcast, t.aggregated, m.driver_heap, m.driver_python, m.executor_heap, m.worker,
            made.seconds.epoch,
        ]  # fmt: skip

    made = [plan(replace(ML_25M, **{name: value})) for value in (16, 64, 256, 1024)]
    for small, large in pairwise(made):
        assert all(a <= b for a, b in zip(cost(small), cost(large), strict=True))


def test_more_tasks_return_more_but_each_returns_less() -> None:
    few, many = plan(ML_25M), plan(replace(ML_25M, tasks=16, executors=4))
    assert many.transport.task < few.transport.task < many.transport.aggregated
    assert many.transport.total == few.transport.total
    assert many.seconds.compute < few.seconds.compute


def test_what_does_not_fit_is_named_with_number_limit_and_cure() -> None:
    made = plan(replace(ML_25M, k=512))
    assert shortfall(made, PLENTY) == ""
    text = shortfall(made, replace(PLENTY, driver_heap=4 * GIB))
    assert text.startswith("train.k = 512 with 62,423 items needs ")
    assert "GiB on the driver's heap, spark.driver.memory is 4.0 GiB; use train.k <= " in text
    assert "--conf spark.driver.memory=" in text
    largest = int(text.split("train.k <= ")[1].split()[0])
    assert shortfall(plan(replace(ML_25M, k=largest)), replace(PLENTY, driver_heap=4 * GIB)) == ""
    assert shortfall(plan(replace(ML_25M, k=2 * largest)), replace(PLENTY, driver_heap=4 * GIB)) != ""


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (replace(PLENTY, max_result=100 * MIB), "spark.driver.maxResultSize"),
        (replace(PLENTY, machine=1 * GIB), "on the driver's machine"),
        (Limits(False, 64 * GIB, None, None, 512 * MIB, None), "spark.executor.memory"),
        (Limits(False, 64 * GIB, None, None, 64 * GIB, 384 * MIB), "spark.executor.memoryOverhead"),
    ],
)
def test_every_limit_is_checked(limits: Limits, setting: str) -> None:
    assert setting in shortfall(plan(ML_25M), limits)


def test_a_task_cannot_return_more_than_a_java_array_holds() -> None:
    assert "in one task's result" in shortfall(
        plan(replace(ML_25M, k=1024, tasks=1, items=2_000_000)), replace(PLENTY, machine=None)
    )


@pytest.mark.parametrize(
    ("local", "setting", "value"),
    [
        (True, "driver_heap", "spark.driver.memory"),
        (True, "max_result", "spark.driver.maxResultSize"),
        (False, "executor_heap", "spark.executor.memory"),
        (False, "executor_python", "spark.executor.memoryOverhead"),
    ],
)
def test_what_is_recommended_fits(local: bool, setting: str, value: str) -> None:
    made = plan(replace(ML_25M, k=256))
    advice = {each.name: each for each in recommended(made, local)}
    given = parse_size(advice[value].value, MIB)
    assert shortfall(made, replace(PLENTY, local=local, machine=None, **{setting: given})) == ""
    assert all(each.reason for each in advice.values())


def test_sizes_as_spark_reads_them() -> None:
    assert parse_size("2g", MIB) == 2 * GIB
    assert parse_size("512", MIB) == 512 * MIB
    assert parse_size("100kb", 1) == 100 * 1024
    assert (conf_size(1.5 * GIB), conf_size(1 * GIB), conf_size(300 * MIB - 5)) == ("2g", "1g", "300m")
    with pytest.raises(CapacityError, match="'many'"):
        parse_size("many", 1)


def test_a_containers_limit_counts_less_the_page_cache() -> None:
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8388608 kB\n"}

    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    assert free_memory(read) == 8 * GIB
    folder = "/sys/fs/cgroup"
    files |= {f"{folder}/memory.max": "max\n", f"{folder}/memory.current": f"{2 * GIB}\n", f"{folder}/memory.stat": ""}
    assert free_memory(read) == 8 * GIB
    files |= {f"{folder}/memory.max": f"{4 * GIB}\n", f"{folder}/memory.stat": f"anon 5\ninactive_file {GIB}\n"}
    assert free_memory(read) == 3 * GIB


def test_given_counts_stand_for_tables() -> None:
    config = load_config(overrides=GIVEN)
    counts = overridden(config, None)
    assert counts.size == DataSize(162_541, 20_000_076, 10_000_000, 62_423)
    made = plan_training(config, counts, Cluster(1, 2, 2))
    w = made.workload
    assert (w.users, w.events, w.positives, w.items) == (162_541, 25_000_095, 12_500_000, 62_423)
    assert (w.blocks, w.negatives, w.tasks) == (40, 256, 2)
    assert counts.of_items.sum() == pytest.approx(25_000_095)


def test_given_counts_go_before_the_tables() -> None:
    config = load_config(overrides=["plan.events=1000"])
    tables = counts_of_tables(config, DataSize(10, 80, 40, 4), _catalogue())
    assert (tables.events, tables.positives, tables.side_features) == (100, 50, 2)
    assert overridden(load_config(), tables) is tables
    mixed = overridden(config, tables)
    assert (mixed.events, mixed.positives, mixed.size.users, mixed.side_features) == (1000, 50, 10, 2)
    assert mixed.size.events == 800
    assert "[plan] over" in mixed.origin


def _catalogue():  # type: ignore[no-untyped-def]
    from fm_spark.events.catalogue import Catalogue

    ids = np.arange(4)
    titles = np.array(list("abcd"), dtype=object)
    genres: list[list[str]] = [["x"], ["x", "y"], [], []]
    return Catalogue(ids, titles, genres, np.array([70, 20, 10, 0]), ids, ids, [None] * 4, [{}] * 4)
