"""The lock file and the settings files say what the project says elsewhere."""

from __future__ import annotations

import re
import tomllib

from fm_spark.submit import PROJECT

LOCK = (PROJECT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_pins_and_hashes_packages_and_names_no_place() -> None:
    for line in LOCK.splitlines():
        assert re.fullmatch(
            r"[a-z0-9._-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|    # .*|#.*", line
        ), line
    assert not re.search(r"https?:|file:|--index|--find-links|--extra-index|/", re.sub(r"#.*", "", LOCK))


def test_the_lock_holds_every_direct_dependency_and_the_pinned_pair() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", LOCK, flags=re.MULTILINE))
    assert {re.split(r"[<>=]", name)[0] for name in direct} <= set(locked)
    pinned = dict(name.split("==") for name in direct if "==" in name)
    assert set(pinned) == {"pyspark", "delta-spark"}
    assert pinned.items() <= locked.items()


def test_every_local_spark_setting_has_its_reason_above_it() -> None:
    lines = (PROJECT / "conf" / "spark-local.conf").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("spark."):
            assert len(line.split()) == 2, line
            above = lines[number - 1]
            assert above.startswith(("#", "spark.")), line
