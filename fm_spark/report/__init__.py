"""The summary at the end of a run: what was made and how good it is, on the terminal and as one HTML file."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from fm_spark.config_sections import ReportConfig
from fm_spark.report.collect import collect_run
from fm_spark.report.html import html_report
from fm_spark.report.plots import draw_plots
from fm_spark.report.text import print_report
from fm_spark.tables.store import TableStore

log = logging.getLogger("fm_spark.report")


def show_run(
    store: TableStore, run_id: str, shown: ReportConfig, seconds: Mapping[str, float] | None = None
) -> Path | None:
    """Prints the summary of a published run on stdout and writes ``reports/<run_id>.html`` under a local root.

    Args:
        run_id: the run; ``""`` takes the newest publication.
        seconds: wall-clock seconds by step, when the caller has measured them.

    Returns:
        The HTML file; None when the tables lie on another file system.

    Raises:
        TableError: the run is not published, or a version that it names is gone.
    """
    begin = time.monotonic()
    facts = collect_run(store, run_id, shown, seconds)
    print_report(facts)
    if store.local_root is None:
        log.info("no HTML report: %s is not a local folder", store.root)
        return None
    path = store.local_root / "reports" / f"{facts.run_id}.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(html_report(facts, draw_plots(facts)), encoding="utf-8")
    log.info("report: %s (made in %.1f s)", path, time.monotonic() - begin)
    return path
