"""Java, the pyspark and delta-spark pair, and Spark Connect."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from fm_spark import environment
from fm_spark.environment import PAIRS, check_java, check_not_connect, check_pair, delta_package
from fm_spark.errors import EnvironmentProblem
from fm_spark.submit import PROJECT


@pytest.mark.parametrize(
    ("spark", "delta", "package"),
    [
        ("3.5.6", "3.3.2", "io.delta:delta-spark_2.12:3.3.2"),
        ("4.0.1", "4.0.0", "io.delta:delta-spark_2.13:4.0.0"),
        ("4.1.0", "4.1.0", "io.delta:delta-spark_4.1_2.13:4.1.0"),
        ("4.2.0", "4.4.0", "io.delta:delta-spark_4.2_2.13:4.4.0"),
    ],
)
def test_the_artifact_is_named_after_spark_from_4_1_on(spark: str, delta: str, package: str) -> None:
    assert delta_package(spark, delta) == package


def test_the_artifact_of_the_installed_pair() -> None:
    assert delta_package().endswith(":" + metadata.version("delta-spark"))


@pytest.mark.parametrize(("spark", "delta"), [("3.5.6", "4.4.0"), ("4.2.0", "3.3.2"), ("3.4.1", "3.3.2")])
def test_a_pair_of_different_generations_is_refused(spark: str, delta: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"pyspark {spark} and delta-spark {delta}.*make setup"):
        delta_package(spark, delta)


def installed(monkeypatch: pytest.MonkeyPatch, spark: str, delta: str) -> None:
    monkeypatch.setattr(environment, "_installed", lambda package: {"pyspark": spark, "delta-spark": delta}[package])


@pytest.mark.parametrize(("spark", "delta"), PAIRS)
def test_every_supported_pair_is_accepted(monkeypatch: pytest.MonkeyPatch, spark: str, delta: str) -> None:
    check_pair()  # the installed one
    installed(monkeypatch, spark, delta)
    check_pair()


@pytest.mark.parametrize(("spark", "delta"), [("4.1.9", "4.4.0"), ("4.2.0", "3.3.2"), ("3.5.6", "3.3.1")])
def test_another_pair_is_refused(monkeypatch: pytest.MonkeyPatch, spark: str, delta: str) -> None:
    installed(monkeypatch, spark, delta)
    with pytest.raises(EnvironmentProblem, match=rf"pyspark {spark} and delta-spark {delta} are installed.*make setup"):
        check_pair()


def test_the_pairs_are_those_of_the_lock_files() -> None:
    for (spark, delta), lock in zip(PAIRS, ("requirements.lock", "requirements-spark35.lock"), strict=True):
        locked = (PROJECT / lock).read_text(encoding="utf-8").splitlines()
        assert {f"pyspark=={spark} \\", f"delta-spark=={delta} \\"} <= set(locked)


def fake_java(folder: Path, says: str, code: int = 0) -> dict[str, str]:
    binary = folder / "bin" / "java"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n", encoding="utf-8")
    binary.chmod(0o755)
    return {"PATH": str(binary.parent)}


@pytest.mark.parametrize(
    ("says", "version"), [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "21" 2023', 21)]
)
def test_java_of_the_path_is_recognised(tmp_path: Path, says: str, version: int) -> None:
    assert check_java(fake_java(tmp_path, says)) == version


@pytest.mark.parametrize(("says", "version"), [('java version "1.8.0_402"', 8), ('openjdk version "11.0.2"', 11)])
def test_an_old_java_is_refused_with_the_command_to_type(tmp_path: Path, says: str, version: int) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"Java 17 or newer.*is Java {version};.*apt-get install"):
        check_java(fake_java(tmp_path, says))


def test_a_java_that_does_not_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="does not start"):
        check_java(fake_java(tmp_path, "Error occurred during initialization of VM", code=1))


def test_no_java_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no java on the PATH"):
        check_java({"PATH": str(tmp_path)})


def test_java_home_goes_before_the_path(tmp_path: Path) -> None:
    on_path = fake_java(tmp_path, 'openjdk version "17.0.1"')
    with pytest.raises(EnvironmentProblem, match="has no bin/java"):
        check_java({**on_path, "JAVA_HOME": str(tmp_path / "nowhere")})
    assert check_java({"PATH": "", "JAVA_HOME": str(tmp_path)}) == 17


def test_spark_connect_is_refused() -> None:
    check_not_connect({"SPARK_API_MODE": "classic"})
    for variables in ({"SPARK_REMOTE": "sc://host"}, {"SPARK_API_MODE": "connect"}):
        with pytest.raises(EnvironmentProblem, match=f"{next(iter(variables))} = .*RDD.*unset"):
            check_not_connect(variables)
