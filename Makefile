# Everything lives in $(VENV); a second call does nothing that is already done. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
# Installed before edgewright when given, for example a CPU-only build: make test TORCH=torch==2.13.0
TORCH  ?=
# Extras beside the test tools, for example EXTRAS=ray or EXTRAS=ray,timm
EXTRAS ?=
# Test processes; auto is one per core.
JOBS   ?= auto
# Where `make demo` puts its run.
OUT    ?= runs/digits

comma := ,
BIN   := $(VENV)/bin
# Of thousands of modules few are ever imported: those that are, are compiled then.
INSTALL := $(BIN)/pip install --no-compile
# The tests of a file run in one process, so that what they share is made once, and in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
CORE  := $(VENV)/.core-installed
TEST  := $(VENV)/.test-installed$(if $(EXTRAS),-$(subst $(comma),-,$(EXTRAS)))

.PHONY: help install install-test demo test test-fast lint types format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgewright needs Python 3.11 or later; choose one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)

$(CORE): pyproject.toml | $(BIN)/pip
	$(if $(TORCH),$(INSTALL) "$(TORCH)")
	$(INSTALL) -e .
	@touch $@

$(TEST): pyproject.toml | $(BIN)/pip
	$(if $(TORCH),$(INSTALL) "$(TORCH)")
	$(INSTALL) -e ".[test$(if $(EXTRAS),$(comma)$(EXTRAS))]"
	@touch $(CORE) $@

install: $(CORE) ## make .venv and install edgewright into it

install-test: $(TEST) ## the same, with the test tools

demo: $(CORE) ## three minutes: design a network for handwritten digits; says where the report is
	@if [ -e "$(OUT)/plan.yaml" ]; then \
		echo "$(OUT) holds this demo already: going on with it (a finished one is shown again). For a new run: make demo OUT=runs/another"; \
		$(BIN)/edgewright design --resume "$(OUT)"; \
	else \
		$(BIN)/edgewright design --task digits --latency-ms 0.3 --minutes 3 --out "$(OUT)"; \
	fi
	@echo; echo "Open the report: $(abspath $(OUT))/report.html"

test: $(TEST) ## the whole test suite
	$(PYTEST)

test-fast: $(TEST) ## the tests that take a few seconds at most
	$(PYTEST) -m "not slow"

lint: $(TEST) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST) ## pyright over src
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(TEST) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and the tools' caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
