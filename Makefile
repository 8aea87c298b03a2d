# Everything sets itself up: a machine with Python 3.11 and make is enough.
#   make demo      the whole path on generated clips, in a few minutes
#   make test      all tests
#   make check     what a change must pass: lint, types, tests
#
# CPU-only Linux: PyTorch's public index gives a wheel without CUDA (0.2 GB instead of 5 GB):
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint types fix soak setup

demo: $(READY)
	$(BIN)/raydist demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

soak: $(READY)
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raydist needs Python 3.11 or newer; name one with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
