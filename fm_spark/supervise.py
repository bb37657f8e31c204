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
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import IO

from fm_spark.launcher import SOCKET, Launcher

INTERRUPTED = 130


def supervise(command: Sequence[str], environment: Mapping[str, str], verbose: bool) -> int:
    """Runs the command and returns its exit code; 130 after Ctrl-C, 143 after a polite kill.

    What the JVM writes to stderr before the job's Python has started (how it found Delta's jar, mostly) is shown only
    when the start fails or ``verbose`` is set.
    """
    launcher = Launcher()
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
        reader = threading.Thread(target=_relay, args=(child.stderr, launcher, received), daemon=True)
        if child.stderr is not None:
            reader.start()
        code = child.wait()
    if child.stderr is not None:
        reader.join(timeout=5)
    launcher.close()
    if received:
        print("interrupted; the tables keep their last good version", file=sys.stderr)
        return 128 + received[0]
    # The JVM was killed by somebody else: a shell would say 128 + the signal's number.
    return code if code >= 0 else 128 - code


def _relay(stream: IO[str], launcher: Launcher, received: list[int]) -> None:
    """Holds lines back until the job has joined, then lets all through; shows them after all if it never joins.

    After a signal nothing is shown: tasks that lose their context complain, and that is no news.
    """
    start: deque[str] = deque(maxlen=200)
    for line in stream:
        if not launcher.joined.is_set():
            start.append(line)
        elif not received:
            sys.stderr.write(line)
            sys.stderr.flush()
    if launcher.joined.is_set() or received:
        return
    missing = re.search(r"unresolved dependency: ([^\]]*)\]", "".join(start))
    if missing:
        print(
            f"spark-submit.sh: {missing[1]}: it is not in the local cache, and no repository that holds it can be "
            "reached; run `make setup` while the machine is online",
            file=sys.stderr,
        )
    else:
        sys.stderr.writelines(start)
        sys.stderr.flush()


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
