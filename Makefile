# `make demo` and `make test` set everything up themselves, in .venv, once.

VENV := .venv
BIN := $(VENV)/bin
# More arguments for the two commands, for example: make demo DEMO_ARGS="--seed 1"
DEMO_ARGS ?=
PYTEST_ARGS ?=
# For pip, for example: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=

.PHONY: help demo test lint bench docs release clean

help:
	@echo "make demo   decode pictures and captions from simulated scans, and write a page that shows them"
	@echo "make test   check format, lint and types, and run the tests"
	@echo "make lint   check format, lint and types only"
	@echo "make bench  compare the hot paths with plain implementations, in about a minute, into bench.json"
	@echo "make docs   build the documentation and the gallery of examples into docs/_build/html, without a network"
	@echo "make release  build wheel and source archive, install each into an empty environment, and try it"
	@echo "make clean  remove .venv (the results of runs stay)"

demo: $(VENV)/.installed-demo
	$(BIN)/unibrain demo $(DEMO_ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-demo
	OMP_WAIT_POLICY=PASSIVE OPENBLAS_THREAD_TIMEOUT=4 $(BIN)/python benchmarks/quick.py --json bench.json

docs: $(VENV)/.installed-docs
	rm -rf docs/_build docs/gallery docs/api/generated
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 docs docs/_build/html
	@! grep -rnE '(src|href)="(https?:)?//[^"]*\.(js|css|woff2?|png|svg)"' docs/_build/html --include=*.html || \
	  { echo "Error: these pages ask other hosts for files" >&2; exit 1; }

release: $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q nox
	$(BIN)/python -m nox -s release

clean:
	rm -rf $(VENV)

# The stamps are older than a changed pyproject.toml or constraints.txt: then it is installed again.
$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[demo,test]"
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[demo,docs]"
	@touch $@

# Python 3.11 to 3.13, or what PYTHON names: make demo PYTHON=/opt/python3.12/bin/python3
$(BIN)/python:
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "making $(VENV) with $$candidate ($$("$$candidate" --version))"; \
	    "$$candidate" -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "Error: $$candidate cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv) and run make again" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "Error: no Python 3.11 to 3.13 was found: install one, or name it with make PYTHON=/path/to/python3.11" >&2; \
	exit 1
