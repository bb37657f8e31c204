#!/usr/bin/env bash
# Makes .venv-NAME with the packages of requirements-NAME.lock: another pair of pyspark and delta-spark for the tests
# (`make test-matrix`). The project itself has to be set up: its uv installs, its Python is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name="$1"
lock="requirements-$name.lock"
venv=".venv-$name"
log="$(mktemp -t fm_spark-pair.XXXXXX)"
trap 'rm -f "$log"' EXIT

fail() {
    echo "setup-pair: $*" >&2
    exit 2
}
quietly() {
    local what="$1"
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        fail "$what failed; the last lines of its output are above"
    fi
}

[[ -f "$lock" ]] || fail "there is no $lock; pairs: $(echo requirements-*.lock | sed 's/requirements-//g; s/\.lock//g')"
.venv/bin/python -m uv --version >/dev/null 2>&1 || fail "the project is not set up; run: make setup"
# pyspark 3.5 needs distutils, which left Python with 3.12
python="$(.venv/bin/python -m uv python find --no-project 3.11 2>/dev/null)" ||
    fail "Python 3.11 is needed for the pair $name, and none was found; install one and put it on the PATH"

echo "setup-pair: installing $lock into $venv"
quietly "making $venv" .venv/bin/python -m uv venv --clear --python "$python" "$venv"
quietly "uv pip install" .venv/bin/python -m uv pip install --python "$venv/bin/python" --require-hashes -r "$lock"
quietly "uv pip install of fm_spark" .venv/bin/python -m uv pip install --python "$venv/bin/python" \
    --no-deps --no-build-isolation --editable .
quietly "fetching Delta's jar" "$venv/bin/python" scripts/fetch_delta.py
touch "$venv/.ready"
