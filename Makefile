# Every target works on a fresh machine: the environment is made when it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA ?= dev
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint without-tfmot slow applications notebooks bench long-bench headline clean

demo: $(VENV)/installed
	$(BIN)/kprune demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The suite in an environment that has neither tf_keras nor TFMOT.
without-tfmot:
	$(MAKE) VENV=$(VENV)-without-tfmot EXTRA=test test

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

applications: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m applications

notebooks: $(VENV)/installed-dev
	$(if $(NOTEBOOKS),$(BIN)/jupyter execute $(NOTEBOOKS))

# Benchmarks that train for half an hour and longer.
LONG = benchmarks/methods.py benchmarks/structured.py benchmarks/versus_tfmot.py

bench: $(VENV)/installed-dev
	for script in $(filter-out benchmarks/deep_compression.py $(LONG),$(wildcard benchmarks/[a-z]*.py)); \
		do $(BIN)/python $$script || exit 1; done

long-bench: $(VENV)/installed-dev
	for script in $(LONG); do $(BIN)/python $$script || exit 1; done

headline: $(VENV)/installed-dev
	$(BIN)/python benchmarks/deep_compression.py

clean:
	rm -rf $(VENV) $(VENV)-without-tfmot

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/installed-dev: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install -e ".[$(EXTRA)]"
	touch $@ $(VENV)/installed
