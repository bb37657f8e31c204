# Everything a person types; scripts/setup.sh does the set-up, once for each state of the lock file.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup run test lint types contracts format lock clean

READY := .venv/.ready
VENV_PYTHON := .venv/bin/python

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv, install the locked packages, make sure of Java 17+ and Delta's jar
	@:

$(READY): requirements.lock pyproject.toml scripts/setup.sh scripts/fetch_delta.py
	@scripts/setup.sh

run: $(READY) ## train on the bundled MovieLens ratings and write the tables to warehouse/
	@./spark-submit.sh pipeline --config conf/local.toml

test: $(READY) ## run every test
	@$(VENV_PYTHON) -m pytest

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

lock: $(READY) ## resolve pyproject.toml into requirements.lock again
	@$(VENV_PYTHON) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock

clean: ## remove .venv, caches and build output; the tables in warehouse/ stay
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
