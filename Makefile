# `make demo` and `make test` do everything on a machine with Python 3.11 and pip.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# torch is installed first and by exact version: another resolution pulls gigabytes of CUDA. Where
# the default index has no CPU build, say for example
#   make install TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-fast fuzz lint format stubs bundle images catalogue-page bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## install into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "Python 3.11 is needed: set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 $(TORCH_INDEX)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## four hospitals train one model on this machine
	$(BIN)/cohortium-sim demo

test: install ## every test
	$(PYTEST) -n $(WORKERS) --dist loadscope -m "not slow and not e2e"
	$(PYTEST) -n $(WORKERS) --dist loadscope -m "slow and not e2e" --timeout 900
	$(PYTEST) -m e2e --timeout 900

test-fast: install ## the tests that take seconds
	$(PYTEST) -n $(WORKERS) --dist loadscope -m "not slow and not e2e"

fuzz: install ## 10,000 mutated inputs for each reader of hospital data; half an hour
	COHORTIUM_FUZZ_CASES=10000 $(PYTEST) -m slow --timeout 3600 tests/contract -k "mutated or changed"

lint: install ## format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stubs: install ## generate the gRPC stubs again
	$(BIN)/python -m tests.lib.grpc_stubs

images: install ## build the images of coordinator, board, agent and courier
	PYTHON=$(BIN)/python docker/build_images.sh

bundle: install ## build the Flower bundle again; then pin its digest in bundle_pin.py
	$(BIN)/python -c "from server.bundle import *; from pathlib import Path; Path('server/bundle', BUNDLE_NAME).write_bytes(build_bundle())"

catalogue-page: install ## write docs/feature-catalogue.md from the catalogue's data files
	$(BIN)/cohortium-coordinator plan catalogue --markdown > docs/feature-catalogue.md

bench: install ## the measurements of docs/benchmarks.md
	$(BIN)/python benchmarks/aggregation.py
	$(BIN)/python benchmarks/round_overhead.py
	$(BIN)/python benchmarks/install_size.py
	$(BIN)/python benchmarks/dp_step.py
	$(BIN)/python benchmarks/fhir_reader.py
	$(BIN)/python -m benchmarks.feature_build
	$(BIN)/python -m benchmarks.monitoring_envelope
	$(BIN)/python -m benchmarks.monitoring_sum
	$(BIN)/python -m benchmarks.monitoring_relay
	$(BIN)/python -m benchmarks.simulated_stroke

clean: ## remove the virtual environment and the demo
	rm -rf $(VENV) demo-run
