"""The launcher and the job, with a shell script in the place of spark-submit.

Like Spark's JVM the script writes noise to stderr, and gives Python one pipe for stdout and stderr.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = (
    "import os, sys; from fm_spark.supervise import supervise; sys.exit(supervise(sys.argv[1:], os.environ, False))"
)
JOB = """
import sys, time
from fm_spark.launcher import join_launcher
assert join_launcher()
print("a result")
print("a message", file=sys.stderr)
sys.stdout.flush()
{then}
"""


def launch(tmp_path: Path, then: str, before: str = "") -> subprocess.Popen[str]:
    job = tmp_path / "job.py"
    job.write_text(JOB.format(then=then), encoding="utf-8")
    script = tmp_path / "spark-submit"
    script.write_text(
        f'#!/bin/bash\necho "loading jars" >&2\n{before}\n'
        f'"{sys.executable}" "{job}" 2>&1 | cat\n'
        f'code="${{PIPESTATUS[0]}}"\necho "netlib-blas: dlopen failed" >&2\necho "an error" >&2\nexit "$code"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_results_messages_and_exit_code_come_through_and_the_start_is_quiet(tmp_path: Path) -> None:
    process = launch(tmp_path, "sys.exit(7)")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7
    assert out == "a result\n"
    assert err == "a message\nan error\n"


def test_a_start_that_fails_shows_what_was_held_back(tmp_path: Path) -> None:
    process = launch(tmp_path, "", before='echo "no memory" >&2; exit 3')
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "")
    assert err == "loading jars\nno memory\n"


def test_a_program_that_is_no_job_keeps_the_start_quiet_too(tmp_path: Path) -> None:
    process = launch(tmp_path, "", before="exit 0")
    assert process.communicate(timeout=60) == ("", "")


def test_a_jar_that_cannot_be_had_is_one_message(tmp_path: Path) -> None:
    ivy = "java.lang.RuntimeException: [unresolved dependency: io.delta#delta-spark;4.4.0: not found]"
    process = launch(tmp_path, "", before=f'echo "{ivy}" >&2; exit 1')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("spark-submit.sh: io.delta#delta-spark;4.4.0: not found")
    assert "make setup" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_reaches_the_job_and_ends_with_the_shells_code(tmp_path: Path, number: int, code: int) -> None:
    process = launch(tmp_path, "time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "a result\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "interrupted" in err
    assert "an error" not in err


def test_a_killed_launcher_takes_its_job_along(tmp_path: Path) -> None:
    process = launch(tmp_path, "print(os.getpid(), flush=True) if (os := __import__('os')) else 0\ntime.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    job = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while alive(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(job)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")
