"""``./spark-submit.sh``: turns a job's name and arguments into a spark-submit command, checks the machine, runs it."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fm_spark.config import Config, load_config
from fm_spark.config_checks import check_asked
from fm_spark.environment import (
    SINGLE_THREADED,
    cache_folder,
    check_java,
    check_not_connect,
    check_pair,
    delta_settings,
)
from fm_spark.errors import ConfigError, EnvironmentProblem, FmSparkError
from fm_spark.options import DRY_RUN_JOBS, JOB_OPTIONS, add_job_arguments, overrides
from fm_spark.secrecy import masked, masked_setting
from fm_spark.supervise import supervise

PROJECT = Path(__file__).resolve().parent.parent
SMALL_INPUT = 200_000_000  # bytes
LOCAL_SETTINGS = PROJECT / "conf" / "spark-local.conf"
JOBS = {
    "pipeline": "the jobs from events to publish, in this order, in one session",
    "events": "read ratings (MovieLens or your own) into labelled, split events",
    "train": "fit the factorization machine and store its parameters",
    "evaluate": "measure the model and the popularity ranking on the held-out events",
    "recommend": "write the top-N list of every user",
    "cluster": "group the items by their vectors and describe the groups",
    "popular": "write the lists of what is popular, overall and per genre",
    "similar": "write the nearest items of every item",
    "audience": "write the best users for asked-for items and segments",
    "score": "answer the pairs of users and items in a file or table",
    "rerank": "put the candidates of every user in a file or table in order",
    "publish": "write the row that names the tables of this run which belong together",
    "rollback": "publish an earlier run again: --to RUN_ID",
    "history": "show the published runs, how good they are and what changed between them",
    "maintain": "remove what the last publications do not need, join small files; --dry-run tells",
    "forget": "take a person out of every table: --user ID; --dry-run tells",
    "plan": "predict bytes, memory and seconds of train, and recommend Spark settings",
}


@dataclass(frozen=True)
class Submission:
    """A spark-submit command and the environment variables that it needs."""

    command: list[str]
    environment: dict[str, str]

    def shell(self) -> str:
        """The command with its variables as one line to paste into a shell; secrets are masked."""
        settings = [word == "--conf" for word in ["", *self.command]]  # whether the word before is --conf
        words = [
            masked_setting(*word.split("=", 1)) if setting and "=" in word else masked(word)
            for word, setting in zip(self.command, settings, strict=False)
        ]
        return shlex.join(["env", *(masked_setting(*variable) for variable in self.environment.items()), *words])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line of ``./spark-submit.sh`` and returns its exit code."""
    try:
        return _submit(_parse(sys.argv[1:] if argv is None else argv))
    except FmSparkError as error:
        print(f"spark-submit.sh: {masked(str(error))}", file=sys.stderr)
        return error.exit_code


def _submit(arguments: argparse.Namespace) -> int:
    check_not_connect()
    check_pair()
    config = load_config(arguments.config, overrides(arguments))  # a typo is found before a JVM is started
    check_asked(arguments.job, config)
    submission = build(arguments, config, os.environ)
    if arguments.dry_run and arguments.job not in DRY_RUN_JOBS:
        print(submission.shell())
        return 0
    check_java()
    if not (PROJECT / "jobs" / f"{arguments.job}.py").is_file():
        raise EnvironmentProblem(f"jobs/{arguments.job}.py is missing from {PROJECT}; get a complete copy of fm_spark")
    return supervise(submission.command, {**os.environ, **submission.environment}, arguments.verbose)


def build(arguments: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> Submission:
    """The command for parsed arguments; what the caller's environment says goes before our defaults."""
    home = spark_home()
    settings = _settings(arguments.conf)
    asked = arguments.master or settings.pop("spark.master", None) or environ.get("SPARK_MASTER")
    master = asked or _default_master(home, environ) or "local[*]"
    java_options = [settings.pop("spark.driver.extraJavaOptions", "")]
    command = ["--master", master, "--name", f"fm_spark {arguments.job}"]
    if settings.get("spark.submit.deployMode") != "cluster":
        java_options = log_options(arguments.verbose) + java_options
    if is_local(master):
        command += ["--properties-file", str(LOCAL_SETTINGS)]
        java_options = [
            *_archive_options(Path(sys.prefix), java_options[-1]),
            *_small_options(config.input.path, java_options[-1]),
            *java_options,
        ]
    else:
        # a cluster's own Spark knows the cluster's class path
        home = Path(environ.get("SPARK_HOME") or home)
    if any(java_options):
        command += ["--driver-java-options", " ".join(filter(None, java_options))]
    for name, value in delta_settings(environ).items():
        # lists are added to; the cache folder gives way
        more = settings.pop(name, "")
        settings[name] = more or value if name == "spark.jars.ivy" else ",".join(filter(None, [value, more]))
    for name, value in ({f"spark.executorEnv.{name}": "1" for name in SINGLE_THREADED} | settings).items():
        command += ["--conf", f"{name}={value}"]
    command += [str(PROJECT / "jobs" / f"{arguments.job}.py"), *_job_arguments(arguments)]
    variables = session_environment(environ, is_local(master)) | {"SPARK_HOME": str(home)}
    return Submission([str(home / "bin" / "spark-submit"), *command], variables)


def session_environment(environ: Mapping[str, str], local: bool = True) -> dict[str, str]:
    """Variables that Spark and its Python processes need; those that the caller has set stay as they are."""
    wanted = {
        **SINGLE_THREADED,
        # Spark prefers its own pyspark.zip to what is installed; the interpreter has to be the one of this environment.
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        # Kernels are compiled once for a user, not once for each worker or working directory; and once again when any
        # of their sources changes: numba itself does not see a change of what it inlined from another module.
        "NUMBA_CACHE_DIR": str(cache_folder(environ) / "numba" / _kernels_digest()),
    }
    if local:
        # Without this Spark looks its host name up, and fails on a machine that cannot resolve it.
        wanted["SPARK_LOCAL_IP"] = "127.0.0.1"
        wanted["SPARK_LOCAL_HOSTNAME"] = "localhost"
    return {name: environ.get(name) or value for name, value in wanted.items()}


def _kernels_digest() -> str:
    total = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "core").glob("*.py")):
        total.update(source.read_bytes())
    return total.hexdigest()[:12]


def spark_home() -> Path:
    """Folder of the Spark that comes with the installed pyspark; found without importing it."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem("the Python package pyspark is not installed; run `make setup`")
    return Path(spec.origin).parent


def is_local(master: str) -> bool:
    """Whether driver and tasks run on this machine (``local``, ``local[2]``, ``local-cluster[2,1,1024]``)."""
    return master.startswith("local")


def _small_options(input_path: str, chosen: str) -> list[str]:
    """Java without its optimising compiler and with its plain collector when the input is small.

    Compiling costs some 30 s of processor time in any run, half of a run on the bundled ratings; it makes Spark twice
    as fast on bulk data, which earns that back from about 10 million events on. The default collector's threads take
    the cores from Spark where there are two.

    Args:
        chosen: the user's own Java options; with a collector in them none is added, for Java refuses two.
    """
    path = Path(input_path)
    size = sum(file.stat().st_size for file in [path, *path.glob("*")] if file.is_file())
    if not 0 < size < SMALL_INPUT:
        return []
    return ["-XX:TieredStopAtLevel=1"] + ([] if re.search(r"-XX:\+Use\w+GC", chosen) else ["-XX:+UseSerialGC"])


def _archive_options(environment: Path, chosen: str) -> list[str]:
    """Java with the archive of Spark's classes that set-up made (scripts/setup.sh), if it is there.

    An archive of another Java or of other jars is passed over by Java; that is no reason for a warning.

    Args:
        environment: the folder of the virtual environment; chosen: the user's own Java options.
    """
    archive = environment / "classes.jsa"
    if not archive.is_file() or "SharedArchiveFile" in chosen or "ArchiveClassesAtExit" in chosen:
        return []
    return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]


def _default_master(home: Path, environ: Mapping[str, str]) -> str | None:
    """``spark.master`` of the machine's spark-defaults.conf, if it has one."""
    folder = environ.get("SPARK_CONF_DIR") or Path(environ.get("SPARK_HOME") or home) / "conf"
    try:
        lines = (Path(folder) / "spark-defaults.conf").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    words = [line.replace("=", " ", 1).split() for line in lines]
    return next((w[1] for w in words if len(w) > 1 and w[0] == "spark.master"), None)


def log_options(verbose: bool = False) -> list[str]:
    """Java options that make Spark log as ``conf/log4j2.properties`` says."""
    options = [f"-Dlog4j2.configurationFile={(PROJECT / 'conf' / 'log4j2.properties').as_uri()}"]
    if verbose:
        options += ["-Dfm_spark.log.level=warn", "-Dfm_spark.log.trace=full", "-Dfm_spark.log.tasks=warn"]
    return options


def local_submit_args(
    master: str, java_options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> list[str]:
    """Words of ``PYSPARK_SUBMIT_ARGS`` for a Python process that opens a local session of its own."""
    words = ["--master", master, "--properties-file", str(LOCAL_SETTINGS)]
    words += ["--driver-java-options", " ".join([*log_options(), *java_options])]
    for name, value in (settings or {}).items():
        words += ["--conf", f"{name}={value}"]
    return [*words, "pyspark-shell"]


def _settings(texts: Sequence[str]) -> dict[str, str]:
    settings = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.startswith("spark."):
            raise ConfigError(
                f"--conf {masked(text)!r} is not of the form spark.name=value, for example spark.driver.memory=8g; "
                "fm_spark's own keys are given with --set"
            )
        settings[name] = value
    return settings


def _job_arguments(arguments: argparse.Namespace) -> list[str]:
    words: list[str] = []
    if arguments.config is not None:
        words += ["--config", os.path.abspath(arguments.config)]
    for setting in arguments.set:
        words += ["--set", setting]
    if arguments.run_id is not None:
        words += ["--run-id", arguments.run_id]
    for option in JOB_OPTIONS:
        value = getattr(arguments, option.name)
        for text in [value] if isinstance(value, str) else value or ():
            words += [option.flag, text]
    if arguments.dry_run and arguments.job in DRY_RUN_JOBS:
        words.append("--dry-run")
    return words + (["--verbose"] if arguments.verbose else [])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"{message}; ./spark-submit.sh --help lists the jobs and options")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    arguments = _parser().parse_args(argv)
    if arguments.job not in JOBS:
        raise ConfigError(_unknown_job(arguments.job))
    for option in JOB_OPTIONS:
        if getattr(arguments, option.name) is not None and arguments.job != option.job:
            raise ConfigError(f"{option.flag} is an option of {option.job}, not of {arguments.job}; leave it out")
    return arguments


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, JOBS))
    parser = _Parser(
        prog="./spark-submit.sh",
        usage="./spark-submit.sh JOB [--config FILE] [--set KEY=VALUE]... [--run-id ID] [--as WHAT]\n"
        "                         [--dry-run] [--master M] [--conf K=V]... [--verbose]",
        description="Runs a job of fm_spark with spark-submit.",
        epilog="jobs:\n" + "\n".join(f"  {job:<{width}}  {text}" for job, text in JOBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("job", metavar="JOB", help="which job, see below")
    add_job_arguments(parser)
    parser.add_argument("--master", metavar="M", help="where Spark runs (default: SPARK_MASTER, else local[*])")
    parser.add_argument("--conf", metavar="K=V", action="append", default=[], help="a Spark setting; may be repeated")
    return parser


def _unknown_job(job: str) -> str:
    close = difflib.get_close_matches(job, JOBS, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown job {job!r}{hint} (jobs: {', '.join(JOBS)})"


if __name__ == "__main__":
    sys.exit(main())
