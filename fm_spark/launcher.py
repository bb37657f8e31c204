"""The thread between ``spark-submit.sh`` and the job's Python process, with Spark's JVM in the middle.

spark-submit starts Python with pipes for stdin and stdout and merges stderr into stdout, so a job could neither see a
terminal nor keep results and messages apart. The launcher therefore waits on a Unix socket; the job connects and is
handed the launcher's own stdout and stderr. The connection stays open: when the launcher ends, however it ends, so does
the job.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

SOCKET = "FM_SPARK_LAUNCHER"


class Launcher:
    """The side of ``spark-submit.sh``: a socket that hands this process' stdout and stderr to the job."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fm_spark-", dir="/tmp" if Path("/tmp").is_dir() else None)
        self.path = str(Path(self._folder.name) / "launcher")
        self.joined = threading.Event()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            self._connection, _ = self._server.accept()
            socket.send_fds(self._connection, [b"."], [1, 2])
            self.joined.set()
        except OSError:
            return  # closed before a job came: it never started

    def close(self) -> None:
        """Removes the socket; a job that is still connected ends."""
        self._server.close()
        self._folder.cleanup()


def join_launcher() -> bool:
    """Takes over the launcher's stdout and stderr, if there is a launcher; False in any other process."""
    path = os.environ.pop(SOCKET, "")
    if not path:
        return False
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        _, streams, _, _ = socket.recv_fds(connection, 1, 2)
    except OSError:
        connection.close()
        return False  # another host (cluster mode): the streams stay as Spark made them
    sys.stdout.flush()
    sys.stderr.flush()
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    return True


def _end_with(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(1)  # the launcher is gone: nobody reads the output, and a second run may start
