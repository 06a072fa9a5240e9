# Needs python3 (3.10 or newer), pip, make and git. Everything else is put inside this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAP := .cache/bootstrap
# A time-out kills its worker, and another would hang in the same test, over and over.
WORKERS := --dist loadfile --max-worker-restart 0
READY := $(VENV)/.ready
MEASURING := $(VENV)/.measuring
UV := PYTHONPATH=$(BOOTSTRAP) $(PYTHON) -m uv

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench lint types format clean

help: ## this list
	@echo "leasehold: tag limits that give their slots back. What make can do here:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv

# uv comes through pip, and into this folder: many systems have no `venv` module.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "leasehold needs Python 3.10 or newer; $$($(PYTHON) --version) is too old. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up .venv (once; about half a minute) ..."
	@mkdir -p .cache
	@test -d $(BOOTSTRAP)/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target $(BOOTSTRAP) uv
	@$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	@$(UV) pip install --quiet --python $(BIN)/python -e '.[dev]'
	@touch $@
	@echo "Ready."

demo: $(READY) ## run the main example, without a server, and watch its limit hold
	@PREFECT_API_URL= LEASEHOLD_HOME="$${LEASEHOLD_HOME:-$(CURDIR)/.cache/demo}" \
		$(BIN)/python examples/etl_database.py

test: lint types ## lint, types, and the tests that are quick (a few minutes)
	@$(BIN)/python -m pytest -m "not slow" -n 3 $(WORKERS) -o faulthandler_timeout=50

test-all: test ## all of that, and the tests that take long (half an hour)
	@$(BIN)/python -m pytest -m slow -n 2 $(WORKERS) --durations 15

bench: $(MEASURING) ## measure beside Prefect's client (an hour; BENCH="--prefect-rounds 0": ten minutes)
	@$(BIN)/python -m benchmarks $(BENCH)

$(MEASURING): $(READY)
	@$(UV) pip install --quiet --python $(BIN)/python -e '.[dev,bench]'
	@touch $@

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "Some files are not formatted: make format"; exit 1; }

types: $(READY) ## mypy, strict
	@$(BIN)/mypy

format: $(READY) ## have ruff format the code
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format .

clean: ## remove what the targets above have made
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
