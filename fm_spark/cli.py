"""The command line that every job shares: arguments, log, session, and errors turned into a message and an exit code.

Results go to stdout; the log and the errors go to stderr. Exit codes: 0 done, 1 failed, 2 the user's mistake, 130
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from fm_spark.config import Config, load_config
from fm_spark.errors import FmSparkError
from fm_spark.failures import explain
from fm_spark.launcher import join_launcher
from fm_spark.options import add_job_arguments, overrides
from fm_spark.secrecy import MaskSecrets, masked
from fm_spark.session import open_session
from fm_spark.tables.files import Folder
from fm_spark.tables.locks import locked
from fm_spark.tables.notes import lineage
from fm_spark.tables.runs import started_run_id

log = logging.getLogger("fm_spark")

_BEGIN_A_RUN = ("events", "pipeline")
_ONLY_READ = ("plan", "history", "score", "rerank")


def job_main(job: str, run: Callable[[SparkSession, Config], object], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs ``run(spark, config)`` as the job of that name and ends the process with its exit code.

    Args:
        argv: arguments without the program's name; ``None`` takes those of the process.
    """
    launched = join_launcher()
    arguments = job_parser(job).parse_args(argv)
    set_up_logging(arguments.verbose)
    try:
        run_job(job, run, arguments)
    except KeyboardInterrupt:
        if not launched:  # else the launcher says so
            log.error("interrupted; the tables keep their last good version")
        sys.exit(130)
    except Exception as error:
        message, code = explain(error)
        log.error("%s", message)
        if arguments.verbose:
            print(masked(traceback.format_exc()), end="", file=sys.stderr)
        elif code == 1 and not isinstance(error, FmSparkError):
            log.error("run it again with --verbose for the stack trace")
        sys.exit(code)
    sys.exit(0)


def run_job(job: str, run: Callable[[SparkSession, Config], object], arguments: argparse.Namespace) -> None:
    """Loads the configuration, opens the session, runs the job under the lock of its tables, stops the session."""
    config = load_config(arguments.config, overrides(arguments))
    if job in _BEGIN_A_RUN:
        config = replace(config, run=replace(config.run, id=started_run_id(config)))
    spark = open_session(job, config)
    # pyspark's own handler of Ctrl-C talks to a JVM that has had the signal too and is closing
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        only_tells = getattr(arguments, "dry_run", False)  # and commits nothing, so it needs no lock
        with lineage(job, config), contextlib.nullcontext() if only_tells else _own_tables(spark, config, job):
            run(spark, config)
    finally:
        # after a lost JVM this would fail too, and hide why
        with contextlib.suppress(Py4JError, OSError):
            spark.stop()


def _own_tables(spark: SparkSession, config: Config, job: str) -> contextlib.AbstractContextManager[None]:
    """The lock of the tables for a job that writes; nothing is locked when the job will find no tables."""
    there = job in _BEGIN_A_RUN or Folder(spark, config.tables.root).exists()
    if job in _ONLY_READ or not there:
        return contextlib.nullcontext()
    return locked(spark, config.tables.root, config.run, job)


def job_parser(job: str) -> argparse.ArgumentParser:
    """The parser of a job's own arguments: ``--config --set --run-id --verbose``."""
    parser = argparse.ArgumentParser(prog=job, allow_abbrev=False)
    add_job_arguments(parser, job)
    return parser


class _CurrentStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what ``sys.stderr`` is now: while a progress bar is drawn it stands in there and keeps lines apart."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def set_up_logging(verbose: bool) -> None:
    """Time, level and message on stderr; of other packages only warnings, and with ``verbose`` Spark's too."""
    handler = _CurrentStderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
    handler.addFilter(MaskSecrets())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        handler.addFilter(_not_from_py4j)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        _mute_query_contexts()


def _not_from_py4j(record: logging.LogRecord) -> bool:
    """Drops what py4j logs of a lost connection, a trace for each call; the message of the job explains it."""
    return f"{os.sep}py4j{os.sep}" not in record.pathname


def _mute_query_contexts() -> None:
    """Keeps Spark 4 from printing every AnalysisException as a line of JSON with its Java stack."""
    try:
        from pyspark.logger import PySparkLogger
    except ImportError:
        return  # Spark 3
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL + 1)
