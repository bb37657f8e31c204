"""Runs spark-submit as a child: quiet start, signals passed on, exit code passed back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType

from fm_spark.launcher import SOCKET, Launcher

# Spark ML asks for the system's BLAS at its first use; without one its own does the work, and it says so past every log
# setting.
_NOISE = "netlib-"


def supervise(command: Sequence[str], environment: Mapping[str, str], verbose: bool) -> int:
    """Runs the command and returns its exit code; 130 after Ctrl-C, 143 after a polite kill.

    What the JVM writes to stderr before the job's Python has started (how it found Delta's jar, mostly) is shown only
    when it never starts or ``verbose`` is set.
    """
    launcher = Launcher()
    start: deque[str] = deque(maxlen=200)
    # A process group of its own: Ctrl-C reaches this process alone, which passes it on once.
    child = subprocess.Popen(
        command,
        env={**environment, SOCKET: launcher.path},
        stdin=subprocess.DEVNULL,
        stderr=None if verbose else subprocess.PIPE,
        process_group=0,
        text=True,
        errors="replace",
    )
    with _passing_signals_to(child) as received:
        reader = threading.Thread(target=_relay, args=(child.stderr or (), launcher, start, received), daemon=True)
        reader.start()
        code = child.wait()
        reader.join(timeout=5)
    launcher.close()
    if received:
        print("interrupted; the tables keep their last good version", file=sys.stderr)
        return 128 + received[0]
    if code != 0 and not launcher.joined.is_set():
        sys.stderr.write(_why_it_did_not_start(start))
    # The JVM was killed by somebody else: a shell would say 128 + the signal's number.
    return code if code >= 0 else 128 - code


def _relay(stream: Iterable[str], launcher: Launcher, start: deque[str], received: list[int]) -> None:
    """Keeps the lines until the job has joined in ``start`` and lets the later ones through.

    After a signal nothing is shown: tasks that lose their context complain, and that is no news.
    """
    for line in stream:
        if not launcher.joined.is_set():
            start.append(line)
        elif not received and not line.startswith(_NOISE):
            sys.stderr.write(line)
            sys.stderr.flush()


def _why_it_did_not_start(start: Iterable[str]) -> str:
    text = "".join(start)
    missing = re.search(r"unresolved dependency: ([^\]]*)\]", text)
    if not missing:
        return text
    return (
        f"spark-submit.sh: {missing[1]}: it is not in the local cache, and no repository that holds it can be "
        "reached; run `make setup` while the machine is online\n"
    )


@contextlib.contextmanager
def _passing_signals_to(child: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on to the child's group while the block runs; yields the list of those received."""
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):
            # a second Ctrl-C is from somebody who does not want to wait
            os.killpg(child.pid, number if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
