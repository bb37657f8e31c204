"""The arguments that every job understands; ``spark-submit.sh`` and the jobs read them with the same code."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from fm_spark.errors import ConfigError


@dataclass(frozen=True)
class JobOption:
    """An option of one job; it stands for a configuration key, which is a list when it may be repeated."""

    job: str
    flag: str
    metavar: str
    key: str
    help: str
    repeated: bool = False

    @property
    def name(self) -> str:
        """Its attribute in the parsed arguments."""
        return self.flag.removeprefix("--").replace("-", "_")


JOB_OPTIONS = (
    JobOption("rollback", "--to", "RUN_ID", "run.id", "the run to publish again"),
    JobOption("forget", "--user", "ID", "forget.users", "a person to forget, as in the input", repeated=True),
    JobOption("score", "--as", "WHAT", "score.answer", "what a pair gets, score or class"),
)
DRY_RUN_JOBS = ("maintain", "forget")
"""Jobs that tell themselves what they would do; of any other job a dry run is the command that would start it."""


def add_job_arguments(parser: argparse.ArgumentParser, job: str = "") -> None:
    """Adds ``--config``, ``--set``, ``--run-id``, ``--verbose`` and ``--dry-run``, and options of single jobs.

    Args:
        job: the job whose parser it is; "" that of ``spark-submit.sh``, which is told the job by its arguments.
    """
    parser.add_argument("--config", metavar="FILE", help="TOML file laid over conf/base.toml, e.g. conf/local.toml")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one key, e.g. --set recommend.n=20; may be repeated",
    )
    parser.add_argument("--run-id", metavar="ID", help="name of the run (the same as --set run.id=ID)")
    for option in JOB_OPTIONS:
        action, more = ("append", "; may be repeated") if option.repeated else ("store", "")
        told = f"{option.job}: {option.help}{more}"
        parser.add_argument(option.flag, metavar=option.metavar, action=action, help=told)
    if not job or job in DRY_RUN_JOBS:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print the spark-submit command and start nothing; maintain and forget start, print what would go and "
            "change nothing",
        )
    if job:
        parser.set_defaults(job=job)
    parser.add_argument("--verbose", action="store_true", help="show Spark's warnings, and stack traces of errors")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The ``section.key=value`` texts that the arguments ask for, ``--run-id`` last.

    Raises:
        ConfigError: an empty value, most likely from an unset variable in somebody's script.
    """
    texts: list[str] = list(arguments.set)
    for option in JOB_OPTIONS:
        value = getattr(arguments, option.name, None)
        if value == "" or (isinstance(value, list) and "" in value):
            raise ConfigError(f"{option.flag} is empty; give {option.help}")
        if value is not None:
            texts.append(f"{option.key}={json.dumps(value)}")
    if getattr(arguments, "dry_run", False) and arguments.job in DRY_RUN_JOBS:
        texts.append(f"{arguments.job}.dry_run=true")
    if arguments.run_id == "":
        raise ConfigError("--run-id is empty; give a name, or leave the option out to have one made")
    if arguments.run_id is not None:
        # quoted, so that an id of digits stays a string
        texts.append(f'run.id="{arguments.run_id}"')
    return texts
