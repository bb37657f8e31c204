"""What the machine must offer: Java, a matching pair of pyspark and delta-spark, classic Spark sessions.

The checks start nothing but ``java -version``; they turn what Spark would report in forty lines into one message.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from fm_spark.errors import EnvironmentProblem

# The pairs of pyspark and delta-spark that the tests pass on; pyproject.toml pins the first, requirements-spark35.lock
# the second (docs/compatibility.md).
PAIRS = (("4.2.0", "4.4.0"), ("3.5.6", "3.3.2"))
JAVA_LEAST = 17
_INSTALL_JAVA = "install one with `sudo apt-get install openjdk-17-jre-headless`, or point JAVA_HOME at it"
# BLAS and OpenMP start a thread per core in every Python worker; Spark already runs one worker per core. One thread
# also keeps floating point sums in one order.
SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

# What Delta asks for and Spark has already, in a newer version: 80 MB that would be downloaded once and copied at every
# start, to be shadowed by Spark's own.
_DELTA_EXCLUDES = ",".join(
    f"{group}:*"
    for group in (
        "org.apache.hadoop",
        "org.apache.parquet",
        "org.apache.logging.log4j",
        "org.slf4j",
        "org.roaringbitmap",
        "org.xerial.snappy",
        "com.fasterxml.jackson.core",
        "com.github.luben",
        "com.google.code.findbugs",
        "commons-logging",
        "io.airlift",
    )
)


def delta_package(spark_version: str | None = None, delta_version: str | None = None) -> str:
    """The Maven coordinate of Delta's JVM artifact for the installed pyspark and delta-spark (or the given versions).

    Until Spark 4.0 the artifact is named after Scala alone; from 4.1 on it carries Spark's minor version too.

    Raises:
        EnvironmentProblem: a package is missing, or the two do not belong together.
    """
    spark_version = spark_version or _installed("pyspark")
    delta_version = delta_version or _installed("delta-spark")
    spark, delta = _numbers(spark_version), _numbers(delta_version)
    if spark < (3, 5) or delta < (3, 2) or (spark[0] == 3) != (delta[0] == 3):
        raise EnvironmentProblem(
            f"pyspark {spark_version} and delta-spark {delta_version} do not belong together; "
            "run `make setup`, which installs the pair that pyproject.toml pins"
        )
    if spark[0] == 3:
        name = "delta-spark_2.12"
    elif spark == (4, 0):
        name = "delta-spark_2.13"
    else:
        name = f"delta-spark_{spark[0]}.{spark[1]}_2.13"
    return f"io.delta:{name}:{delta_version}"


def delta_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The Spark settings by which Spark finds Delta's jar, from the local cache once it has been there."""
    return {
        "spark.jars.packages": delta_package(),
        "spark.jars.excludes": _DELTA_EXCLUDES,
        "spark.jars.ivy": str(cache_folder(environ) / "ivy"),
    }


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where compiled kernels and Delta's jars are kept between runs: ``~/.cache/fm_spark``.

    Spark's own choice for the jars is the home folder that Java finds in the user database, which a container may lack.
    """
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm_spark"


def check_pair() -> None:
    """Makes sure that pyspark and delta-spark are a pair that fm_spark is tested with.

    Raises:
        EnvironmentProblem: a package is missing, or the two are none of :data:`PAIRS`.
    """
    spark, delta = _installed("pyspark"), _installed("delta-spark")
    if (spark, delta) not in PAIRS:
        pairs = " or ".join(f"pyspark {one} with delta-spark {other}" for one, other in PAIRS)
        raise EnvironmentProblem(
            f"pyspark {spark} and delta-spark {delta} are installed, but fm_spark needs {pairs} "
            "(Delta breaks on other pairs); run `make setup`, which installs the first"
        )
    delta_package()


def check_java(environ: Mapping[str, str] = os.environ) -> int:
    """Major version of the Java that Spark will use: that of ``JAVA_HOME``, else the first ``java`` of ``PATH``.

    Raises:
        EnvironmentProblem: there is none, it does not start, or it is older than 17.
    """
    home = environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environ.get("PATH", ""))
    if java is None or (home and not os.access(java, os.X_OK)):
        where = f"JAVA_HOME = {home} has no bin/java" if home else "no java on the PATH, and JAVA_HOME is not set"
        raise EnvironmentProblem(f"Spark needs Java {JAVA_LEAST} or newer, but {where}; {_INSTALL_JAVA}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    if answer.returncode != 0 or not found:
        raise EnvironmentProblem(f"{java} does not start (`{java} -version` failed); {_INSTALL_JAVA}")
    if int(found[1]) < JAVA_LEAST:
        raise EnvironmentProblem(
            f"Spark needs Java {JAVA_LEAST} or newer, but {java} is Java {found[1]}; {_INSTALL_JAVA}"
        )
    return int(found[1])


def check_not_connect(environ: Mapping[str, str] = os.environ) -> None:
    """Makes sure that Spark Connect is off.

    Raises:
        EnvironmentProblem: ``SPARK_REMOTE`` is set, or ``SPARK_API_MODE`` asks for Connect.
    """
    for name, wrong in (("SPARK_REMOTE", True), ("SPARK_API_MODE", environ.get("SPARK_API_MODE") == "connect")):
        if environ.get(name) and wrong:
            raise EnvironmentProblem(
                f"{name} = {environ[name]} asks for Spark Connect, which has no RDDs, and training needs them; "
                f"unset {name} and give --master instead"
            )


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise EnvironmentProblem(f"the Python package {package} is not installed; run `make setup`") from error


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise EnvironmentProblem(f"cannot make sense of the version {version!r}; run `make setup`")
    return int(found[1]), int(found[2])
