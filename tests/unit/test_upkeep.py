"""Maintenance and forgetting without a JVM: options, which tables hold persons, which versions are left."""

from __future__ import annotations

import io

import pytest

from fm_spark.cli import job_parser
from fm_spark.config import load_config
from fm_spark.errors import TableError
from fm_spark.options import DRY_RUN_JOBS, overrides
from fm_spark.report.upkeep import print_forgotten, print_maintenance
from fm_spark.submit import _job_arguments, _parse, main
from fm_spark.tables import contracts as C
from fm_spark.tables.commits import FORGET, Commit, file_name, version_of_run
from fm_spark.tables.files import File
from fm_spark.tables.forgetting import Forgotten, Removed, holds_persons
from fm_spark.tables.maintenance import TablePlan
from fm_spark.tables.readable import READABLE, check_readable, described
from fm_spark.tables.retention import Retained, is_data

# columns that speak of users and name nobody: counts, shares, lists of groups
NAMES_NOBODY = {
    "users", "users_without_truth", "liked_users", "user_share", "n_users",
}  # fmt: skip


def test_every_table_with_persons_is_known_to_forget() -> None:
    for contract in (*C.ALL, C.CHECKPOINTS):
        about_users = {name for name in contract.column_names if "user" in name} - NAMES_NOBODY
        assert about_users <= {"user_id"}, (
            f"{contract.name}: say in forgetting.py how a person is taken out of {about_users}"
        )
        assert holds_persons(contract) or "user_id" not in contract.column_names
    held = {contract.name for contract in (*C.ALL, C.CHECKPOINTS) if holds_persons(contract)}
    assert held >= {"events", "users", "top_n", "data_quality", "fm_parameters", "vocabulary", "checkpoints"}


@pytest.mark.parametrize("job", DRY_RUN_JOBS)
def test_a_dry_run_of_maintain_and_forget_is_the_jobs_own(job: str) -> None:
    words = [job, "--dry-run", *(["--user", "5", "--user", "o'neill"] if job == "forget" else [])]
    arguments = _parse(words)
    config = load_config(None, overrides(arguments))
    assert getattr(config, job).dry_run
    told = job_parser(job).parse_args(_job_arguments(arguments))
    assert load_config(None, overrides(told)) == config
    if job == "forget":
        assert config.forget.users == ["5", "o'neill"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--user", "5"], "--user is an option of forget, not of train"),
        (["forget", "--user", ""], "--user is empty"),
        (["forget"], "forget needs at least one person: --user ID"),
        (["rollback"], "rollback needs the run to go back to: --to RUN_ID"),
        (["score"], "score.input is empty; give a CSV, Parquet or Delta with the columns user_id and item_id"),
        (
            ["rerank", "--set", "score.item_column='sku'"],
            "rerank.input is empty; give a CSV, Parquet or Delta with the",
        ),
        (["maintain", "--set", "maintain.keep_publications=0"], "at least 1"),
        (["maintain", "--set", "maintain.keep_hours=200"], "at most 168"),
    ],
)
def test_mistakes_are_one_message(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_which_versions_are_left() -> None:
    properties = {READABLE: described((3, 5), 9)}
    for version in (3, 5, 9, 12):
        check_readable(properties, "top_n", version)
        check_readable({}, "top_n", version)
    for version in (0, 4, 8):
        with pytest.raises(TableError, match=rf"version {version} of table top_n was removed.*left are 3, 5 and 9 and"):
            check_readable(properties, "top_n", version)


def test_hidden_files_are_no_data() -> None:
    assert is_data("/part-0.parquet")
    assert is_data("/_change_data/cdc-0.parquet")
    assert is_data("/run_id=a/slot=0/part-0.parquet")
    assert is_data("/_part=1/part-0.parquet")
    for path in ("/_delta_log/00000000000000000000.json", "/.part-0.crc", "/_symlink_format_manifest/x", "/a/.tmp/x"):
        assert not is_data(path)
    assert file_name("file:/a%20b/run_id=x/part-0%25.parquet") == "part-0%.parquet"


def test_a_commit_that_forgets_counts_as_that_of_the_run() -> None:
    def commits(*runs: str | None) -> list[Commit]:
        made = [
            Commit(v, "" if run is None else run, 1, job=FORGET if run is None else "x") for v, run in enumerate(runs)
        ]
        return made[::-1]

    assert version_of_run(commits("a", "b"), "a", replaced=False) == 0
    assert version_of_run(commits("a", None, "b", None), "a", replaced=False) == 3
    assert version_of_run(commits("a", "b", None), "a", replaced=True) == 0, "the events are those of another run"
    assert version_of_run(commits("a", None, "b"), "a", replaced=True) == 1
    assert version_of_run(commits("a", None), "b", replaced=False) is None


def test_what_is_printed_names_numbers_and_cures() -> None:
    stream = io.StringIO()
    stays = Retained((3,), 7, (File("file:/x/part-0.parquet", 2_000_000, 0),), (), None)
    print_maintenance([TablePlan(C.TOP_N, 8, 12, 5_000_000, ("r1",), 0, stays)], True, stream)
    for text in ("top_n", "12", "2.0 MB would be removed", "1 old runs: r1", "3, 7 to 8", "Nothing was changed"):
        assert text in stream.getvalue()
    stream = io.StringIO()
    print_forgotten(Forgotten((Removed(C.EVENTS, 7, 9, (3, 8)),), None, (), ("r1.html",)), False, stream)
    for text in ("events", "7", "3, 8", "r1.html", "maintain.keep_publications=1"):
        assert text in stream.getvalue()
