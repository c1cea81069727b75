SHELL := bash
.SHELLFLAGS := -eo pipefail -c

PYTHON ?= $(shell command -v python3.11 || echo python3)

# More arguments for pip. PyPI's torch for Linux brings gigabytes of CUDA packages; without a
# GPU, take the CPU build: PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=

BIN := .venv/bin
READY := .venv/.installed
TORCH = $$(grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: workbook lab test figures lint hooks constraints clean help

workbook: $(READY)  ## execute every notebook, then draw every figure
	$(BIN)/erddci notebooks
	$(BIN)/erddci figures

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

test: $(READY)  ## run the tests, a process on every core
	$(BIN)/python -m pytest -n auto --dist worksteal

figures: $(READY)  ## draw every figure
	$(BIN)/erddci figures

lint: $(READY)  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

hooks: $(READY)  ## do the same before every commit
	$(BIN)/pre-commit install

# Resolves afresh and installs nothing. torch keeps its version: raise it by hand. pip, because
# it takes whatever build of torch it was told of; uv looks in registries alone.
constraints: $(READY)  ## pin the newest versions that pyproject.toml allows
	{ grep '^#' constraints.txt; $(BIN)/pip install -q $(PIP_ARGS) --dry-run --ignore-installed \
	  --report - $(TORCH) -e ".[test]" | $(BIN)/python .ci/pins.py; } > .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt

clean:  ## remove the environment and what the tools left behind
	rm -rf .venv .executed .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -r {} +

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

# torch comes first, and by its exact version, so that a CPU build within pip's reach is taken.
$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv: a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt $(TORCH)
	$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt -e ".[test]"
	touch $@
