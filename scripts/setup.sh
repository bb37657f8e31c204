#!/usr/bin/env bash
# Sets the project up: .venv with the locked packages, Java 17 or newer, Delta's jar. Called by `make setup`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log="$(mktemp -t fm_spark-setup.XXXXXX)"
trap 'rm -f "$log"' EXIT

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 2
}
# Runs a command with its output kept aside; shows the end of it when the command fails.
quietly() {
    local what="$1"
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        fail "$what failed; the last lines of its output are above"
    fi
}
can_install() { [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; }
install_packages() {
    DEBIAN_FRONTEND=noninteractive quietly "apt-get install $*" apt-get install --yes --no-install-recommends "$@"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; install one with \`sudo apt-get install python3 python3-venv\`," \
        "or name one: make setup PYTHON=/path/to/python3"
}

make_venv() {
    local python="$1"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        local package
        package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        can_install || fail "$python cannot make virtual environments; install: sudo apt-get install $package"
        say "installing $package"
        quietly "apt-get update" apt-get update
        install_packages "$package"
    fi
    quietly "python -m venv" "$python" -m venv --clear .venv
}

has_java() { PYTHONPATH=. "$python" -c 'from fm_spark.environment import check_java; check_java()' >"$log" 2>&1; }

make_sure_of_java() {
    has_java && return
    can_install || fail "$(tail -n 1 "$log" | sed 's/^[A-Za-z_.]*: //')"
    quietly "apt-get update" apt-get update
    local version
    for version in 17 21 25; do
        if apt-cache show "openjdk-$version-jre-headless" >/dev/null 2>&1; then
            say "installing Java (openjdk-$version-jre-headless)"
            install_packages "openjdk-$version-jre-headless"
            break
        fi
    done
    has_java || fail "$(tail -n 1 "$log" | sed 's/^[A-Za-z_.]*: //')"
}

# A short run on the bundled ratings. It leaves numba's compiled kernels in their cache, and beside .venv an archive of
# the 20,000 classes that Spark loads: reading them from it saves a quarter of a small run's processor time.
rehearse() {
    local archive=.venv/classes.jsa tables status=0
    rm -f "$archive"
    tables="$(mktemp -d -t fm_spark-rehearsal.XXXXXX)"
    ./spark-submit.sh pipeline --config conf/local.toml --set train.epochs=1 --set tables.root="$tables" \
        --conf spark.driver.extraJavaOptions="-XX:ArchiveClassesAtExit=$PWD/$archive" >"$log" 2>&1 </dev/null || status=1
    rm -rf "$tables"
    return "$status"
}

python="$(find_python)"
make_sure_of_java
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 ||
    ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "creating .venv with $("$python" --version)"
    make_venv "$python"
fi
say "installing the locked Python packages (pyspark alone is 450 MB; minutes the first time)"
quietly "pip install" .venv/bin/python -m pip install --disable-pip-version-check --no-input \
    --require-hashes -r requirements.lock
quietly "pip install of fm_spark" .venv/bin/python -m pip install --disable-pip-version-check --no-input \
    --no-deps --no-build-isolation --editable .
say "fetching Delta's jar for Spark, so that runs work offline"
quietly "fetching Delta's jar" .venv/bin/python scripts/fetch_delta.py
say "rehearsing a run, so that the first one finds its kernels compiled and Java's classes at hand (a minute)"
rehearse || say "the rehearsal failed, runs will take longer to start; it said: $(grep -v "^\[" "$log" | tail -n 1)"
touch .venv/.ready
say "done"
