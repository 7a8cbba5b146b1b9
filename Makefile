# Everything sets itself up: a virtual environment in .venv, pinned packages, compiled kernels, clients for the tests.
# Stamp files in .make remember what is done, so that a second run starts at once.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
BIN := .venv/bin
WEB := tests/clients/web
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv install --quiet --retries 5
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: compile ## Start a development server on this machine; it prints the URL of the demo page
	@exec $(BIN)/aiosfu serve --dev --bind 127.0.0.1 --node-ip 127.0.0.1 $(ARGS)

.PHONY: test
test: .make/dev compile clients ## Run all tests, real browsers and native clients included (ARGS="-k name" selects)
	@$(BIN)/python -m bench compile
	@scripts/run-tests $(ARGS)

.PHONY: lint
lint: .make/dev ## Check style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

.PHONY: types
types: .make/dev ## Check types strictly
	$(BIN)/mypy

.PHONY: bench
bench: compile ## Measure forwarding against the floor of this machine
	$(BIN)/python -m bench forward $(ARGS)

.PHONY: publish
publish: compile ## Measure everything that docs/benchmarks.md publishes, and rewrite its tables
	$(BIN)/python -m bench publish $(ARGS)

.PHONY: compile
compile: .make/run ## Compile the kernels into their cache
	@$(BIN)/aiosfu compile

.PHONY: clients
clients: .make/dev ## Install what the tests' real clients need (browsers and others by apt-get, packages by npm)
	@scripts/install-test-clients $(WEB)

.PHONY: format
format: .make/dev ## Rewrite the source in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: docs
docs: .make/run ## Write the reference in docs/api.md, and docs/tables.md, from the source
	$(BIN)/python -m scripts.api_reference
	$(BIN)/python -m scripts.table_reference

.PHONY: lock
lock: ## Pin the newest allowed packages (needs uv)
	uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" -o requirements.lock
	uv pip compile pyproject.toml --extra test --extra dev --upgrade --universal --python-version 3.11 \
		--generate-hashes --quiet --custom-compile-command "make lock" -o requirements-dev.lock

.PHONY: clean
clean: ## Remove everything that the other targets made
	rm -rf .venv .make .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info $(WEB)/node_modules
	find . -type d \( -name __pycache__ -o -name __kernels__ \) -prune -exec rm -rf {} +

.make/venv:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv \
		|| { echo "make: cannot create a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@mkdir -p .make && touch $@

.make/run: .make/venv requirements.lock pyproject.toml
	@echo "installing the pinned packages"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

.make/dev: .make/run requirements-dev.lock
	@echo "installing the pinned packages for tests"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
