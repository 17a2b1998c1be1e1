# Everything a fresh machine needs: `make demo` and `make test`. Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo tiny check test test-slow bench format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

demo: install   ## the whole path on real text, with the starter codec
	$(BIN)/largeconcept demo --out runs/demo

tiny: install   ## the same path with a codec trained from scratch
	$(BIN)/largeconcept demo --codec scratch --out runs/tiny

check: install  ## format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install   ## fast tests, at most ten minutes on two cores
	$(BIN)/pytest

test-slow: install
	$(BIN)/pytest -m "slow or not slow"

bench: install
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/codec_training.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/context_cost.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build dist src/*.egg-info
