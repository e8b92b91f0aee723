# Two commands do all the set-up: `make demo` and `make test`. Everything else works in the existing environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check lint types unit coverage test-slow mutants clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

setup: $(STAMP)  ## Create .venv and install genrec with its tools.

demo: setup  ## Run the main job on the built-in market: prepare, tokenize, train, evaluate, recommend.
	$(BIN)/genrec demo

test: setup check  ## Set up, then lint, type-check and test.

check: lint types unit  ## Lint, type-check and test in the existing environment.

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

unit:
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope

coverage:  ## Branch coverage of genrec/, which must stay at 90 % or more.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

test-slow:  ## The tests that take minutes.
	$(BIN)/pytest -m slow

mutants:  ## Break five named lines one at a time; for each, a test must fail.
	$(BIN)/python tests/mutants.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
