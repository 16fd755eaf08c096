# `make serve` and `make test` do everything on a fresh machine that has Python 3.11 or later.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready

.PHONY: serve test check bench scale torture simulate clean

serve: $(READY)
	$(BIN)/pybroker serve --config configs/server.toml --with-default-root-credentials

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest tests/test_tidy.py

bench: $(READY)
	$(BIN)/python -m pybroker.benchmarks.wire

scale: $(READY)
	$(BIN)/python -m pybroker.benchmarks.scale

torture: $(READY)
	$(BIN)/python -m pytest tests/integration/test_torture.py --rounds 50 -s

simulate: $(READY)
	$(BIN)/python -m pytest tests/simulation --seeds 5000 -s

# The link lets the type checker find `pybroker`; see [tool.basedpyright].
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pybroker needs Python 3.11 or later; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	mkdir -p $(VENV)/types
	ln -sfn $(CURDIR) $(VENV)/types/pybroker
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
