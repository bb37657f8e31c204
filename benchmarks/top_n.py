"""Times exact top-N on one core at the shape of MovieLens 25M, on a sample of its users.

    python -m benchmarks.top_n [--users 4000] [--all-users 162541] [--items 62423] [--k 64] [--n 100] [--seen 154]
                               [--alike | --root FOLDER]

Prints the seconds of the lists and what all users would take, those of scoring every pair (the matrix product and the
mask alone), and which part of the pairs the lists need; and, where ``implicit`` can be imported, its C++ topk on the
same matrices (it belongs in a folder of its own: ``pip install --target FOLDER implicit tqdm``, then
``PYTHONPATH=FOLDER``). The items are those of benchmarks/finished_run.py: factors and biases like a trained machine's,
with ``--alike`` items of which none can be left out, with ``--root`` those of the newest model below that folder, for
its own users and what they have seen.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from unittest.mock import patch

# before numpy is loaded: one core is what a Spark task has
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from scipy import sparse

from benchmarks.finished_run import QUERY_LENGTH, count_of_items, item_side
from fm_spark.config import load_config
from fm_spark.core import topk
from fm_spark.core.item_scores import USER_TILE, Items, UserItems, prepare_items, score_tiles, tile_product, user_items
from fm_spark.core.queries import user_queries
from fm_spark.core.topk import Sorted, sort_items, top_n
from fm_spark.events.sequences import pack
from fm_spark.ranking.inputs import load_inputs
from fm_spark.session import open_session
from fm_spark.submit import local_submit_args, session_environment
from fm_spark.tables.contracts import EVENTS
from fm_spark.tables.runs import PUBLISH
from fm_spark.tables.store import TableStore

_BLOCK = 2048


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("users", 4000),
        ("all-users", 162_541),
        ("items", 62_423),
        ("k", 64),
        ("n", 100),
        ("seen", 154),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--alike", action="store_true", help="items that no bound tells apart: factors of one length and no biases"
    )
    parser.add_argument("--root", help="take a trained machine and its users from the tables there")
    a = parser.parse_args()
    items, queries, seen = _of_run(a.root) if a.root else _inputs(a)
    a.users, a.items, a.k = len(queries), items.n_items, queries.shape[1]
    a.all_users = a.users if a.root else a.all_users
    looks = f"of {a.root}" if a.root else "all alike" if a.alike else "as trained"
    seen_a_user = len(seen.items) / a.users
    ordered = sort_items(items, float(np.median(np.linalg.norm(queries, axis=1))))
    _lists(items, queries[:USER_TILE], seen, a.n, ordered)  # compiles
    everything = _seconds(lambda: _scores(items, queries, seen))
    whole = _seconds(lambda: _lists(items, queries, seen, a.n, ordered))
    print(f"{a.users:,} of {a.all_users:,} users x {a.items:,} items, one core")
    print(f"k = {a.k}, N = {a.n}, {seen_a_user:.0f} seen items a user, factors {looks}")
    print(f"{'part':<22}{'seconds':>10}{'users/s':>12}{'all users, s':>14}")
    for part, seconds in (("the lists", whole), ("scores of all pairs", everything)):
        print(f"{part:<22}{seconds:>10.2f}{a.users / seconds:>12,.0f}{seconds * a.all_users / a.users:>14.1f}")
    print(f"all pairs are scored with {2e-9 * a.users * a.items * a.k / everything:.0f} GFLOP/s")
    print(f"for the lists {_share(items, queries, seen, a.n, ordered):.1%} of them are scored")
    if importlib.util.find_spec("implicit") is None:
        print("implicit is not installed here: its topk is left out")
        return
    theirs = _implicit(items, queries, seen, a.n)
    share = f"{theirs:>10.2f}{a.users / theirs:>12,.0f}{theirs * a.all_users / a.users:>14.1f}"
    print(f"{'implicit':<22}{share}  (one thread, the same matrices, {theirs / whole:.1f} times as long)")


def _inputs(a: argparse.Namespace) -> tuple[Items, np.ndarray, UserItems]:
    rng = np.random.default_rng(0)
    factors, bias = item_side(rng, count_of_items(rng, a.items), a.k, a.alike)
    seen = np.concatenate([rng.choice(a.items, a.seen, replace=False) for _ in range(a.users)])
    queries = rng.normal(0, QUERY_LENGTH / np.sqrt(a.k), (a.users, a.k)).astype(np.float32)
    return prepare_items(factors, bias), queries, user_items(np.arange(a.users + 1) * a.seen, seen.astype(np.int32))


def _of_run(root: str) -> tuple[Items, np.ndarray, UserItems]:
    os.environ.update(session_environment(os.environ))
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(local_submit_args("local[2]", [], {}))
    config = load_config(overrides=[f"tables.root='{root}'"])
    store = TableStore(open_session("benchmark top_n", config), root)
    inputs = load_inputs(store, config, PUBLISH)
    columns = ("user_id", "position", "item_feature", "label")
    rows = store.rows(EVENTS, inputs.model.input_versions.get(EVENTS.name), columns)
    ordered = rows.sort_by([("user_id", "ascending"), ("position", "ascending")]).combine_chunks()
    block = pack(ordered, inputs.catalogue.feature_to_item)
    store.spark.stop()
    items = prepare_items(inputs.machine.item_factors, inputs.machine.item_bias)
    return items, user_queries(block, inputs.machine), user_items(block.ptr, block.item)


def _share(items: Items, queries: np.ndarray, seen: UserItems, n: int, ordered: Sorted) -> float:
    """Which part of the pairs of users and items the lists look at."""
    pairs = []

    def product(users: np.ndarray, factors: np.ndarray, buffer: np.ndarray) -> np.ndarray:
        pairs.append(len(users) * len(factors))
        return tile_product(users, factors, buffer)

    with patch.object(topk, "tile_product", product):
        _lists(items, queries, seen, n, ordered)
    return sum(pairs) / (len(queries) * items.n_items)


def _scores(items: Items, queries: np.ndarray, seen: UserItems) -> None:
    for first in range(0, len(queries), USER_TILE):
        for _ in score_tiles(items, queries, seen, first, min(first + USER_TILE, len(queries))):
            pass


def _lists(items: Items, queries: np.ndarray, seen: UserItems, n: int, ordered: Sorted) -> None:
    for first in range(0, len(queries), _BLOCK):
        block = queries[first : first + _BLOCK]
        ptr = seen.ptr[first : first + len(block) + 1]
        top_n(items, block, n, UserItems(ptr - ptr[0], seen.items[ptr[0] : ptr[-1]]), ordered)


def _implicit(items: Items, queries: np.ndarray, seen: UserItems, n: int) -> float:
    """Processor seconds of the C++ topk of ``implicit``; it has no biases, so they are one more factor."""
    from implicit.cpu.topk import topk  # type: ignore[import-not-found]

    factors = np.column_stack([items.factors, items.bias])
    wanted = np.column_stack([queries, np.ones(len(queries), np.float32)])
    shape = (len(queries), items.n_items)
    hidden = sparse.csr_matrix((np.ones(len(seen.items), np.float32), seen.items, seen.ptr), shape=shape)
    return _seconds(lambda: topk(factors, wanted, n, filter_query_items=hidden, num_threads=1), time.process_time)


def _seconds(action, clock=time.thread_time) -> float:  # type: ignore[no-untyped-def]
    """Seconds of processor time of the calling thread, so that other load on the machine counts little; best of two."""
    best = np.inf
    for _ in range(2):
        begin = clock()
        action()
        best = min(best, clock() - begin)
    return best


if __name__ == "__main__":
    main()
