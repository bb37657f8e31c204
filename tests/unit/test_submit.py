"""The spark-submit command that a command line becomes, and the mistakes that need no JVM to be found."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from fm_spark import submit
from fm_spark.submit import JOBS, PROJECT, main


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPARK_MASTER", "SPARK_HOME", "SPARK_CONF_DIR", "SPARK_REMOTE", "SPARK_API_MODE"):
        monkeypatch.delenv(name, raising=False)


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main([*words, "--dry-run"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return shlex.split(output.out)


def after(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]


def test_every_job_is_a_file_and_every_file_is_a_job() -> None:
    assert {path.stem for path in (PROJECT / "jobs").glob("[a-z]*.py")} == set(JOBS)


def test_the_command_names_master_package_job_and_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(capsys, "train", "--config", "conf/local.toml", "--set", "train.k=8", "--run-id", "12", "--verbose")
    assert after(words, "--master") == ["local[*]"]
    assert after(words, "--properties-file") == [str(PROJECT / "conf" / "spark-local.conf")]
    assert any(setting.startswith("spark.jars.packages=io.delta:delta-spark") for setting in after(words, "--conf"))
    job = words.index(str(PROJECT / "jobs" / "train.py"))
    config = os.path.abspath("conf/local.toml")
    assert words[job + 1 :] == ["--config", config, "--set", "train.k=8", "--run-id", "12", "--verbose"]


def test_what_score_answers_travels_to_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(capsys, "score", "--as", "class", "--set", "score.input='pairs.csv'")
    assert after(words, "--as") == ["class"]


def test_words_with_spaces_and_quotes_survive_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert after(dry_run(capsys, "events", "--set", "tables.root='a b; $HOME'"), "--set") == [
        "tables.root='a b; $HOME'"
    ]


def test_paths_are_those_of_the_callers_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text("[train]\nk = 2\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert after(dry_run(capsys, "events", "--config", "my.toml"), "--config") == [str(tmp_path / "my.toml")]


def test_the_master_comes_from_option_setting_environment_or_defaults_in_this_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "spark-defaults.conf").write_text("# mine\nspark.master   local[3]\n", encoding="utf-8")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert after(dry_run(capsys, "events"), "--master") == ["local[3]"]
    monkeypatch.setenv("SPARK_MASTER", "local[4]")
    assert after(dry_run(capsys, "events"), "--master") == ["local[4]"]
    assert after(dry_run(capsys, "events", "--conf", "spark.master=local[5]"), "--master") == ["local[5]"]
    words = dry_run(capsys, "events", "--conf", "spark.master=local[5]", "--master", "local[6]")
    assert after(words, "--master") == ["local[6]"]


def test_local_settings_are_for_local_masters(capsys: pytest.CaptureFixture[str]) -> None:
    words = dry_run(capsys, "events", "--master", "yarn")
    assert "--properties-file" not in words
    assert not any(word.startswith("SPARK_LOCAL_IP=") for word in words)
    assert "spark.executorEnv.OMP_NUM_THREADS=1" in after(words, "--conf")


def test_the_users_settings_join_ours(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["spark.jars.packages=a:b:1", "spark.driver.extraJavaOptions=-Xss4m", "spark.driver.memory=9g"]
    words = dry_run(capsys, "events", *(word for option in options for word in ("--conf", option)))
    settings = after(words, "--conf")
    assert any("io.delta:" in setting and setting.endswith(",a:b:1") for setting in settings)
    assert "spark.driver.memory=9g" in settings
    (java,) = after(words, "--driver-java-options")
    assert "log4j2" in java
    assert java.endswith(" -Xss4m")


def test_small_inputs_do_without_what_only_bulk_data_earn_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def options(*words: str) -> str:
        return after(dry_run(capsys, "events", "--set", f"input.path={tmp_path}", *words), "--driver-java-options")[0]

    assert "Tiered" not in options()
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n", encoding="utf-8")
    assert "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" in options()
    assert "Serial" not in options("--conf", "spark.driver.extraJavaOptions=-XX:+UseG1GC")  # Java refuses two
    assert options("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=4").endswith("Level=4")
    assert "Tiered" not in options("--master", "yarn")
    monkeypatch.setattr(submit, "SMALL_INPUT", 10)
    assert "Tiered" not in options()


def test_the_archive_of_classes_is_used_when_set_up_made_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def options(*words: str) -> str:
        return after(dry_run(capsys, "events", *words), "--driver-java-options")[0]

    monkeypatch.setattr(submit.sys, "prefix", str(tmp_path))
    assert "Archive" not in options()
    (tmp_path / "classes.jsa").touch()
    assert f"-XX:SharedArchiveFile={tmp_path / 'classes.jsa'}" in options()
    assert "Archive" not in options("--master", "yarn")
    own = options("--conf", "spark.driver.extraJavaOptions=-XX:ArchiveClassesAtExit=mine.jsa")
    assert "SharedArchiveFile" not in own


def test_variables_that_the_caller_has_set_stay() -> None:
    given = {"PYSPARK_PYTHON": "/mine/python", "OMP_NUM_THREADS": "4"}
    assert given.items() <= submit.session_environment(given).items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--as", "class"], "--as is an option of score, not of train"),
        (["score", "--as", "stars"], "score.answer = 'stars'"),
        (["recomend"], "unknown job 'recomend'; did you mean recommend?"),
        (["xyz"], "unknown job 'xyz' (jobs: pipeline, events"),
        ([], "JOB"),
        (["events", "--frobnicate"], "--frobnicate"),
        (["events", "--set", "train.epoch=3"], "did you mean train.epochs?"),
        (["events", "--config", "nowhere.toml"], "nowhere.toml"),
        (["events", "--run-id", "a b"], "run.id = 'a b'"),
        (["events", "--run-id", ""], "--run-id is empty"),
        (["events", "--conf", "train.k=3"], "--set"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert len(output.err.splitlines()) == 1


def test_help_lists_every_job_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for job, text in JOBS.items():
        assert any(line.split() == [job, *text.split()] for line in lines)


def test_an_option_of_one_job_is_passed_on_and_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", "--to", "r1", "--dry-run"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("jobs/rollback.py --to r1")
    for words in (["train", "--to", "r1"], ["rollback", "--to", ""]):
        assert main([*words, "--dry-run"]) == 2
    assert "--to is an option of rollback, not of train" in capsys.readouterr().err
