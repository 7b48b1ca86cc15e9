# `make demo` and `make test` need Python 3.11+, make and (for llama.cpp, in `test`) a C++ compiler; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo test lint bench docs setup clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## one answer from an emulated cloud and an emulated phone, side by side with either alone
	$(BIN)/pd-demo $(ARGS)

test: $(VENV)/.all ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.all ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.all ## every benchmark at its full length; JSON into out/; fails where an aim is missed
	mkdir -p out
	missed=0; for name in pacing overhead; do \
	  $(BIN)/python -m benchmarks.$$name --json out/$$name.json || missed=1; done; exit $$missed

docs: $(VENV)/.all ## the generated parts of the documentation
	$(BIN)/python -m wire_protocol.describe write docs

setup: $(VENV)/.all ## .venv with everything

clean: ## remove what the other targets made
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

# The demo runs on ONNX Runtime alone, so that it needs no compiler.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demos]'
	touch $@

# llama-cpp-python compiles llama.cpp: some minutes, once.
$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@ $(VENV)/.demo
