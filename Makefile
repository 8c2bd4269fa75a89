# Each target makes the virtual environment that it needs; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
# NautilusTrader wants 3.12 or newer.
PYTHON_NAUTILUS ?= python3.12
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait for sockets and processes more than they compute.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint types bench docs dist matrix lock sbom format check backtesters clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.run  ## Capture, query, analyse and draw a local market; nothing to configure
	$(BIN)/mdcapture demo

test: $(VENV)/.dev  ## Run the tests
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal $(ARGS)

test-long: $(VENV)/.dev  ## Run the tests that are too long for each change
	$(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal -m long $(ARGS)

lint: $(VENV)/.dev  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Check types, those that a user's program sees, benchmarks and examples
	$(BIN)/mypy
	$(BIN)/mypy tests/packaging/consumer.py
	MYPYPATH=benchmarks:tests $(BIN)/mypy benchmarks
	$(BIN)/mypy examples

check: test lint types  ## All of the above

bench: $(VENV)/.dev  ## Measure; figures are ratios within one run
	$(BIN)/python benchmarks/run.py $(ARGS)

docs: $(VENV)/.dev  ## Build the documentation's site into site/
	$(BIN)/python docs/site/build.py

dist: $(VENV)/.release  ## Build wheel and sdist into dist/, the same bytes from the same commit
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build

matrix: $(VENV)/.release  ## Install the wheel on the oldest and newest Pythons and libraries, and try it; slow
	$(BIN)/python tests/packaging/matrix.py $(ARGS)

lock: $(VENV)/.release  ## Write requirements.lock: every library with its version and hashes
	$(BIN)/uv pip compile pyproject.toml --extra all --universal --generate-hashes --no-emit-index-url --no-header --upgrade --quiet --output-file requirements.lock

sbom: $(VENV)/.release  ## Write dist/sbom.json (CycloneDX): every library of requirements.lock, with its licence
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .cache/locked
	$(BIN)/uv pip install --quiet --python .cache/locked/bin/python --require-hashes --requirements requirements.lock
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json .cache/locked/bin/python

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what was built
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site demo

$(VENV)/.run: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mdcapture needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@

$(VENV)/.release: pyproject.toml $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group release
	touch $@
