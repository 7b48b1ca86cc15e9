# `make demo` and `make test` need Python 3.11+, make and (for llama.cpp, in `test`) a C++ compiler; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
VLLM   := .venv-vllm
OPENVINO := .venv-openvino

.PHONY: help demo chat test test-vllm test-qnn test-openvino lint bench docs setup clean pictures

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## one answer from an emulated cloud and an emulated phone, side by side with either alone
	$(BIN)/pd-demo $(ARGS)

chat: $(VENV)/.chat ## the desktop chat client, with a cloud of its own, bundled models and emulated hardware
	$(BIN)/pd-chat --demo $(ARGS)

test: $(VENV)/.all ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-vllm: $(VENV)/.all $(VLLM)/.all ## the gateway before a real vLLM on this CPU: some minutes, 3 GB
	PD_VLLM_PYTHON=$(VLLM)/bin/python $(BIN)/python -m pytest tests/cloud_service/upstream/test_vllm.py -v

test-qnn: $(VENV)/.qnn ## the device model on Qualcomm's HTP, emulated on this CPU: a minute, 250 MB
	PD_CONTRACT=qnn $(BIN)/python -m pytest tests/contract/test_contract_numbers.py tests/contract/test_contract_sequences.py \
	  tests/device_sdk/npu -k qnn -s -v --timeout 1800

test-openvino: $(OPENVINO)/.all ## the device model on OpenVINO, on this CPU: some minutes, 300 MB
	PD_CONTRACT=openvino $(OPENVINO)/bin/python -m pytest tests/contract/test_contract_numbers.py \
	  tests/contract/test_contract_sequences.py tests/device_sdk/npu -k openvino -s -v --timeout 1800

lint: $(VENV)/.all ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.all ## every benchmark at its full length; JSON into out/; fails where an aim is missed
	mkdir -p out
	missed=0; for name in pacing overhead local_server refinement planning planner; do \
	  $(BIN)/python -m benchmarks.$$name --json out/$$name.json || missed=1; done; exit $$missed

docs: $(VENV)/.all ## the generated parts of the documentation
	$(BIN)/python -m wire_protocol.describe write docs
	$(BIN)/python -m planner.config write docs

setup: $(VENV)/.all ## .venv with everything

# Only a tour that passed replaces them: one without a hand-over shows nothing.
CLIENT ?= --scripted
pictures: $(VENV)/.all ## the README's pictures of the chat client on a virtual display; CLIENT= has the bundled models answer
	$(BIN)/python -m demos.chat.tour $(CLIENT) --size 1100x860 --out out/chat --film out/chat/film.webp
	cp out/chat/timeline.png docs/chat.png
	cp out/chat/film.webp docs/chat.webp

clean: ## remove what the other targets made
	rm -rf $(VENV) $(OPENVINO) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

# The demo runs on ONNX Runtime alone, so that it needs no compiler.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demos]'
	touch $@

$(VENV)/.chat: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[chat]'
	touch $@

# TORCH_INDEX: an index with the CPU builds of torch, which are a tenth of the size; else the default build.
$(VLLM)/.all: tests/cloud_service/upstream/vllm.lock
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

$(VENV)/.qnn: $(VENV)/.all
	$(BIN)/python -m pip install --quiet --editable '.[qnn]'
	touch $@

# This onnxruntime replaces the other one, so it has an environment of its own. The plug-in (pd-device[openvino]) drives
# Intel's hardware only, this build any x86 CPU.
$(OPENVINO)/.all: pyproject.toml
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(OPENVINO)/bin/python -m pip install --quiet --editable '.[demos,export]' --group openvino
	$(OPENVINO)/bin/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-openvino
	$(OPENVINO)/bin/python -m pip install --quiet 'onnxruntime-openvino>=1.24,<2'
	touch $@

# llama-cpp-python compiles llama.cpp: some minutes, once.
$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@ $(VENV)/.demo $(VENV)/.chat
