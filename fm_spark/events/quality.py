"""What was read, what was wrong with it and what was done: the rows of ``data_quality``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One check: how many rows it found, what was done with them, and up to five of them as text."""

    check: str
    rows: int
    action: Literal["kept", "dropped", "counted"]
    detail: str
    examples: tuple[str, ...] = ()


def quality_rows(findings: Iterable[Finding], step: str, run_id: str) -> pd.DataFrame:
    """The findings as rows of ``data_quality``."""
    rows = [(run_id, step, f.check, f.rows, f.action, f.detail, list(f.examples[:MAX_EXAMPLES])) for f in findings]
    return pd.DataFrame(rows, columns=["run_id", "step", "check", "rows", "action", "detail", "examples"])
