# make sweep   the main job: the CDM x BST ablation, with its table
# make test    the tests
# make faults  the tests that kill, interrupt and break runs: minutes more, and part of the gate
# All of them make their virtual environment from constraints.txt when it is missing.

VENV ?= .venv
PYTHON ?= python3.11
STAMP := $(VENV)/.installed
# Two at a time: most of a test's time is processes that start. A file's tests stay together, for
# they share their sweeps.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: sweep test faults lint clean

sweep: $(STAMP)
	$(VENV)/bin/diffgap sweep sweeps/ablation.yaml

test: $(STAMP)
	$(PYTEST) -m "not fault"

faults: $(STAMP)
	$(PYTEST) -m fault

lint: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

$(STAMP): constraints.txt pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[clap,video,generate,search,dev]"
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
