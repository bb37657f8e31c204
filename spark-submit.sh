#!/usr/bin/env bash
# Runs a job of fm_spark: ./spark-submit.sh JOB [options]; --help lists both. Works from any directory.
set -euo pipefail

script="${BASH_SOURCE[0]}"
while [[ -L "$script" ]]; do
    folder="$(cd -P "$(dirname "$script")" && pwd)"
    script="$(readlink "$script")"
    [[ "$script" == /* ]] || script="$folder/$script"
done
project="$(cd -P "$(dirname "$script")" && pwd)"

# tests run the same script with the environment of another pair of pyspark and delta-spark
python="${FM_SPARK_PYTHON:-$project/.venv/bin/python}"
if [[ ! -x "$python" ]]; then
    echo "spark-submit.sh: $project is not set up yet; run: make -C '$project' setup" >&2
    exit 2
fi
exec "$python" -m fm_spark.submit "$@"
