# `make up` installs what is missing and starts OpenChat. `make help` lists the rest.

ARGS ?=
BIN := .venv/bin
CACHES := .mypy_cache .pytest_cache .ruff_cache build dist

.DEFAULT_GOAL := help
.PHONY: help up install install-dev test bench chaos lint format compile clean clean-data

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: install ## Start OpenChat on this machine (ARGS="..." goes to `openchat up`)
	@$(BIN)/openchat up $(ARGS)

install: .venv/.installed ## Create .venv with everything that `make up` needs

install-dev: .venv/.installed-dev ## Add what tests and lint need

test: install-dev ## Run the tests (ARGS="..." goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

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

clean: ## Remove .venv and caches; keeps the data folder
	rm -rf .venv $(CACHES)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data: ## Remove the data folder .openchat
	rm -rf .openchat

# The stamps: while nothing below changed, a second `make install` starts no program at all.
.venv/.installed: pyproject.toml requirements/base.txt requirements/model.txt scripts/install.sh
	@scripts/install.sh

.venv/.installed-dev: .venv/.installed requirements/dev.txt scripts/install-dev.sh
	@scripts/install-dev.sh
