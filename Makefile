# `make serve` and `make test` do everything on a fresh machine that has Python 3.11 or later.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
NATIVE := $(wildcard protocol/native/*)
# Every client generation but the newest, which is in $(VENV) itself: an environment each, for the tests.
OLDER  := 0.6.0 0.7.0 0.8.0
OLDER  := $(OLDER:%=$(VENV)/clients/%/ready)

.PHONY: serve test check bench scale torture simulate clean

serve: $(READY)
	$(BIN)/pybroker serve --config configs/server.toml --with-default-root-credentials

test: $(READY) $(OLDER)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest tests/test_tidy.py

bench: $(READY)
	$(BIN)/pybroker bench run benchmarks/scenarios/short.toml -o benchmarks/results

scale: $(READY)
	$(BIN)/python -m pybroker.benchmarks.scale

torture: $(READY)
	$(BIN)/python -m pytest tests/integration/test_torture.py --rounds 50 -s

simulate: $(READY)
	$(BIN)/python -m pytest tests/simulation --seeds 5000 -s

# The link lets the type checker find `pybroker`; see [tool.basedpyright].
$(READY): pyproject.toml $(NATIVE)
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pybroker needs Python 3.11 or later; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	mkdir -p $(VENV)/types
	ln -sfn $(CURDIR) $(VENV)/types/pybroker
	touch $@

$(OLDER): $(VENV)/clients/%/ready: | $(READY)
	$(BIN)/python -m venv --without-pip $(@D)
	$(BIN)/pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --only-binary :all: apache-iggy==$*
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info protocol/*.so
