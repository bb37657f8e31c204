"""The arguments that every job understands; ``spark-submit.sh`` and the jobs read them with the same code."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from fm_spark.errors import ConfigError


@dataclass(frozen=True)
class JobOption:
    """An option of one job; it stands for a configuration key."""

    job: str
    flag: str
    metavar: str
    key: str
    help: str

    @property
    def name(self) -> str:
        """Its attribute in the parsed arguments."""
        return self.flag.removeprefix("--").replace("-", "_")


JOB_OPTIONS = (JobOption("rollback", "--to", "RUN_ID", "run.id", "the run to publish again"),)


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``, ``--set``, ``--run-id`` and ``--verbose``, and the options that one job has of its own."""
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
        parser.add_argument(option.flag, metavar=option.metavar, help=f"{option.job}: {option.help}")
    parser.add_argument("--verbose", action="store_true", help="show Spark's warnings, and stack traces of errors")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The ``section.key=value`` texts that the arguments ask for, ``--run-id`` last.

    Raises:
        ConfigError: an empty value, most likely from an unset variable in somebody's script.
    """
    texts: list[str] = list(arguments.set)
    for option in JOB_OPTIONS:
        value = getattr(arguments, option.name)
        if value == "":
            raise ConfigError(f"{option.flag} is empty; give {option.help}")
        if value is not None:
            texts.append(f"{option.key}={json.dumps(value)}")
    if arguments.run_id == "":
        raise ConfigError("--run-id is empty; give a name, or leave the option out to have one made")
    if arguments.run_id is not None:
        # quoted, so that an id of digits stays a string
        texts.append(f'run.id="{arguments.run_id}"')
    return texts
