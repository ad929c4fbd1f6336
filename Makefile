# Everything a developer runs. `make help` lists the targets.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= sprite

.DEFAULT_GOAL := help
.PHONY: help install serve fetch web test test-fast lint format bench sprite eval-sprite clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## create .venv and install Safelight into it

serve: $(VENV)/.installed ## serve sprite on 127.0.0.1:8000 (MODEL=, HOST= and PORT= change it)
	@$(BIN)/safelight serve $(MODEL) --host $(HOST) --port $(PORT)

fetch: $(VENV)/.installed-dev ## fetch what the tests need from registries, once (by npm: artwork, page's tools, clients; by pip: openai's tests)
	@$(BIN)/python -m tests.fetch

web: $(VENV)/.installed-dev ## build the page (sources: web/) into the package; needs Node.js 18 or newer and npm
	@$(BIN)/python -c "from tests.fetch import fetch_page_tools; fetch_page_tools()"
	cd web && npm run build

test: lint ## everything CI runs: lint, types, architecture, and the whole suite
	@$(MAKE) --no-print-directory fetch || echo "Going on without it: the tests that need it will say so."
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev ## the tests for in between: about a minute; no process, no server, no torch, nothing heavy
	$(BIN)/python -m pytest -p no:schemathesis -p tests.fast --numprocesses auto tests/test_house.py tests/unit tests/api

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, and the import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-peers ## every figure in the docs beside its peer's, as a table and plots (ONLY=NAME for one)
	$(BIN)/python -m benchmarks.run $(ONLY)

sprite: $(VENV)/.installed-sprite ## train the embedded model (hours; resumes from its last checkpoint)
	$(BIN)/python -m training.sprite.pipeline

eval-sprite: $(VENV)/.installed-sprite ## measure the embedded model against its bars
	$(BIN)/python -m training.sprite.judging.evaluate

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Safelight needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Safelight and what it needs (torch is the big one; a few minutes the first time) ..."
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need ..."
	@$(PIP) install --constraint constraints.txt --editable '.[test,lint]' --requirement training/sprite/requirements.txt
	@touch $@

$(VENV)/.installed-peers: $(VENV)/.installed-dev
	@echo "Installing the servers that Safelight is measured against, beside it ..."
	@$(BIN)/python -m venv $(VENV)/peers
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
	  $$($(VENV)/peers/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/safelight.pth
	@$(VENV)/peers/bin/python -m pip --disable-pip-version-check install --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(VENV)/.installed-sprite: $(VENV)/.installed training/sprite/requirements.txt
	@$(PIP) install --constraint constraints.txt --requirement training/sprite/requirements.txt
	@touch $@
