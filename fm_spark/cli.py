"""The command line that every job shares: arguments, log, session, and errors turned into a message and an exit code.

Results go to stdout; the log and the errors go to stderr. Exit codes: 0 done, 1 failed, 2 the user's mistake, 130
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from pyspark.sql import SparkSession

from fm_spark.config import Config, load_config
from fm_spark.errors import FmSparkError
from fm_spark.failures import explain
from fm_spark.launcher import join_launcher
from fm_spark.options import add_job_arguments, overrides
from fm_spark.session import open_session

log = logging.getLogger("fm_spark")


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
            traceback.print_exc()
        elif not isinstance(error, FmSparkError):
            log.error("run it again with --verbose for the stack trace")
        sys.exit(code)
    sys.exit(0)


def run_job(job: str, run: Callable[[SparkSession, Config], object], arguments: argparse.Namespace) -> None:
    """Loads the configuration, opens the session, runs the job, stops the session."""
    config = load_config(arguments.config, overrides(arguments))
    spark = open_session(job, config)
    try:
        run(spark, config)
    finally:
        spark.stop()


def job_parser(job: str) -> argparse.ArgumentParser:
    """The parser of a job's own arguments: ``--config --set --run-id --verbose``."""
    parser = argparse.ArgumentParser(prog=job, allow_abbrev=False)
    add_job_arguments(parser)
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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    # py4j logs every lost connection with a trace of its own, after the message that explains it
    logging.getLogger("py4j").setLevel(logging.WARNING if verbose else logging.CRITICAL)
    if not verbose:
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
