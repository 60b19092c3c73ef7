# Each target sets itself up in .venv; a bare machine needs Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE := $(and $(shell command -v node 2>/dev/null),$(shell command -v npm 2>/dev/null))
JSCONFIG := src/twostream/web/static/jsconfig.json
TYPESCRIPT := 5.9.3
TSC := $(VENV)/node/node_modules/.bin/tsc
TSC_STAMP := $(VENV)/node/.typescript-$(TYPESCRIPT)

.PHONY: help demo test lint bench bench-report wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

demo: $(STAMP)  ## the whole loop on synthetic tissue, 12 to 16 minutes on 2 slow cores
	$(BIN)/twostream demo

test: $(STAMP)  ## all tests that need neither GPU nor network
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP) $(if $(NODE),$(TSC_STAMP))  ## ruff, mypy, the layers, and the types of the page's JavaScript where node is
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
ifeq ($(NODE),)
	@echo "node or npm is not on this machine: the types of the page's JavaScript were not checked."
else
	$(TSC) -p $(JSCONFIG)
endif

BENCH_OPTIONS = $(if $(DATA),--data $(DATA)) $(if $(ROWS),--rows $(ROWS)) $(if $(FULL),--full)

bench: $(STAMP)  ## quick form of every benchmark; DATA=folder of real sets, ROWS=file to keep the rows, FULL=1 sizes of LOG.md
	for script in benchmarks/*.py; do $(BIN)/python $$script $(BENCH_OPTIONS) || exit 1; done

bench-report: $(STAMP)  ## tables of LOG.md and docs/ from benchmarks/results/
	PYTHONPATH=benchmarks $(BIN)/python -m common.report

wheel: $(STAMP)  ## build the wheel and start the demo from it in an empty environment
	sh tests/wheel.sh $(PYTHON)

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist demo src/*.egg-info

# torch comes first and alone, so that the build that constraints.txt names is the one that everything else finds.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "twostream needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.11."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
		{ echo "This Python cannot make environments (ensurepip is missing). As root: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(TSC_STAMP): | $(STAMP)
	npm install --silent --no-audit --no-fund --no-save --prefix $(VENV)/node typescript@$(TYPESCRIPT)
	@touch $@
