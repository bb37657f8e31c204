# Everything a person types; scripts/setup.sh does the set-up, once for each state of the lock file.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup run test test-pair test-matrix lint types contracts docs format lock clean

READY := .venv/.ready
VENV_PYTHON := .venv/bin/python
# the pair of pyspark and delta-spark that is supported beside the one of pyproject.toml (docs/compatibility.md)
PAIR := spark35
PAIR_PYTHON := .venv-$(PAIR)/bin/python
TESTS := tests

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv, install the locked packages, make sure of Java 17+ and Delta's jar
	@:

$(READY): requirements.lock pyproject.toml scripts/setup.sh scripts/fetch_delta.py
	@scripts/setup.sh

run: $(READY) ## train on the bundled MovieLens ratings and write the tables to warehouse/
	@./spark-submit.sh pipeline --config conf/local.toml

# test modules side by side: a Spark session of a small test waits more than it computes
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

test: $(READY) ## run every test
	@$(VENV_PYTHON) -m pytest $(SIDE_BY_SIDE)

.venv-$(PAIR)/.ready: $(READY) requirements-$(PAIR).lock scripts/setup-pair.sh
	@scripts/setup-pair.sh $(PAIR)

test-pair: .venv-$(PAIR)/.ready ## run the tests on Spark 3.5 in an environment of its own; TESTS=... chooses some
	@FM_SPARK_PYTHON="$(CURDIR)/$(PAIR_PYTHON)" $(PAIR_PYTHON) -m pytest $(SIDE_BY_SIDE) $(TESTS)

test-matrix: test test-pair ## run every test on every supported pair of pyspark and delta-spark

lint: $(READY) ## check style and formatting (ruff)
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .

types: $(READY) ## check types (mypy --strict)
	@$(VENV_PYTHON) -m mypy

contracts: $(READY) ## check which module may import which (import-linter)
	@.venv/bin/lint-imports

format: $(READY) ## format the code and repair what ruff can
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

docs: $(READY) ## write docs/tables.md from the contracts of the tables
	@$(VENV_PYTHON) -m fm_spark.tables.document docs/tables.md

COMPILE := $(VENV_PYTHON) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --quiet

lock: $(READY) ## resolve pyproject.toml into requirements.lock again, and that of the other pair
	@$(COMPILE) --output-file requirements.lock
	@printf 'pyspark==3.5.6\ndelta-spark==3.3.2\n' | $(COMPILE) --override - --output-file requirements-spark35.lock

clean: ## remove .venv, caches and build output; the tables in warehouse/ stay
	@rm -rf .venv .venv-* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
