"""The snippets of docs/reading.md run; those of other engines are left to tests that have them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from delta_tables import publish, write, write_lists

from fm_spark.submit import PROJECT
from fm_spark.tables import contracts as C

SNIPPETS = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "reading.md").read_text("utf-8"), flags=re.DOTALL)


def test_the_snippets_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "warehouse"
    for number, run in enumerate(("r1", "r2"), start=1):
        item = {"item_id": 7, "title": "Seven", "cluster_id": 0, "distance": 0.4, "is_medoid": True}
        clusters = write(root, C.ITEM_CLUSTERS, [{"run_id": run, "model_version": f"fm-{run}", **item}])
        lists = write_lists(root, run, {1: [7, number]})
        publish(root, run, number, {"top_n": lists, "item_clusters": clusters})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in SNIPPETS:
        if "spark.sql" not in snippet and "duckdb" not in snippet:
            exec(snippet, names)
    assert names["rows"].num_rows == len(names["frame"]) == 2  # type: ignore[attr-defined,arg-type]
    assert names["near"].to_pylist() == [{"item_id": 7, "title": "Seven"}]  # type: ignore[attr-defined]
    assert names["users"].to_pylist() == [1]  # type: ignore[attr-defined]
