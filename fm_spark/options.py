"""The arguments that every job understands; ``spark-submit.sh`` and the jobs read them with the same code."""

from __future__ import annotations

import argparse

from fm_spark.errors import ConfigError


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``, ``--set``, ``--run-id`` and ``--verbose``."""
    parser.add_argument("--config", metavar="FILE", help="TOML file laid over conf/base.toml, e.g. conf/local.toml")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one key, e.g. --set recommend.n=20; may be repeated",
    )
    parser.add_argument("--run-id", metavar="ID", help="name of the run (the same as --set run.id=ID)")
    parser.add_argument("--verbose", action="store_true", help="show Spark's warnings, and stack traces of errors")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The ``section.key=value`` texts that the arguments ask for, ``--run-id`` last.

    Raises:
        ConfigError: an empty ``--run-id``, most likely from an unset variable in somebody's script.
    """
    texts: list[str] = list(arguments.set)
    if arguments.run_id == "":
        raise ConfigError("--run-id is empty; give a name, or leave the option out to have one made")
    if arguments.run_id is not None:
        # quoted, so that an id of digits stays a string
        texts.append(f'run.id="{arguments.run_id}"')
    return texts
