"""Run ids."""

from __future__ import annotations

import re
from dataclasses import replace

from fm_spark.config import load_config
from fm_spark.tables.runs import new_run_id, started_run_id


def test_a_run_id_sorts_by_time_and_is_a_legal_run_id() -> None:
    made = new_run_id()
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", made)
    assert load_config(overrides=[f"run.id={made}"]).run.id == made


def test_a_given_run_id_is_kept() -> None:
    config = load_config()
    assert started_run_id(replace(config, run=replace(config.run, id="nightly-7"))) == "nightly-7"
    assert started_run_id(config) != started_run_id(config)
