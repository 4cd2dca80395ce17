# ft. `make demo` shows what it does, `make test` shows that it works; both need Python >= 3.11, make and pip.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

BIN := .venv/bin
# Two tests at a time on two cores: more threads per process would only take turns.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Without it DeepSpeed, wherever it is imported, prints to standard output that it found no GPU.
export DS_ACCELERATOR ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
JOBS ?= $(shell python3 -c 'import os; print(min(os.cpu_count() or 1, 8))')
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup setup-browser screenshots demo test quick slow lint types format bench bench-peers build accept clean test-vllm setup-lmdeploy test-lmdeploy

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Make the environment in .venv (needs Python >= 3.11 and pip; gets uv itself).
	@bash scripts/setup.sh

setup-browser: ## A browser for the tests of the pages: Debian's chromium; other systems have Chrome or Chromium already.
	@bash scripts/setup_browser.sh

screenshots: setup ## Make the pictures of ft-ui's README anew, by the test that trains and chats in a browser.
	FT_SCREENSHOTS=packages/ft-ui/screenshots $(PYTEST) -q -m slow tests/end_to_end/browser

demo: setup ## Teach a real model a new name, then ask it before and after.
	@env -u OMP_NUM_THREADS bash scripts/demo.sh

test: setup lint quick slow ## Lint, types, all tests.

quick: setup ## The tests that take minutes, in parallel.
	$(PYTEST) -n $(JOBS) -m "not slow and not gpu and not accept" -q

slow: setup ## Real model, several processes, builds.
	$(PYTEST) -n $(JOBS) --dist loadgroup -m "slow and not gpu and not accept" -q

lint: setup types ## ruff, import-linter, shellcheck and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck .ci/run scripts/*.sh examples/cluster/*.sh examples/cluster/*.sbatch

types: setup
	$(BIN)/mypy $(foreach d,$(wildcard packages/*),$(d)/src)

format: setup ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Import times, encoding and training against peers, as ratios.
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/encode.py
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/train.py

bench-peers: setup ## Training against ms-swift and LLaMA-Factory, each in an environment of its own.
	@bash scripts/peer_environments.sh
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/peers.py

accept: setup ## The long acceptance run: the main commands on the real model and real rows.
	$(PYTEST) -m accept -q

test-vllm: setup ## Answer with a real vLLM (its CPU build without a GPU) in .venv-vllm.
	bash scripts/engine_environment.sh vllm .venv-vllm
	FT_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(PYTEST) -m accept -q packages/ft-serve/tests/test_real_vllm.py packages/ft-serve/tests/test_beside_vllm.py packages/ft-serve/tests/test_vllm_media.py packages/ft-quant/tests/test_in_vllm.py

setup-lmdeploy: setup ## Make .venv-lmdeploy, for --engine_python.
	bash scripts/engine_environment.sh lmdeploy .venv-lmdeploy

test-lmdeploy: setup-lmdeploy ## Read our words with LMDeploy's own parser; it refuses to run without a GPU.
	FT_LMDEPLOY_PYTHON=$(CURDIR)/.venv-lmdeploy/bin/python $(PYTEST) -m accept -q packages/ft-serve/tests/test_real_lmdeploy.py

build: setup ## Wheels and sdists of all packages in dist/.
	$(BIN)/uv build --all-packages --out-dir dist --quiet
	@ls dist

clean: ## Remove the environment and what was built.
	rm -rf .venv dist output uv.lock .pytest_cache .ruff_cache .mypy_cache
