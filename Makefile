# Everything on a machine that has only python3 and make. Another Python: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.12 python3 python3.11 /usr/bin/python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
export UV_PYTHON_DOWNLOADS = never

.PHONY: setup train test lint

setup: $(VENV)/ready

$(VENV)/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with venv found; name one: make setup PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --requirements requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --editable .
	touch $@

train: setup  # AGaLiTe learns to remember a cue over a corridor of 30 cells
	run=runs/quickstart/$$(date +%Y-%m-%d_%H-%M-%S) && \
	$(VENV)/bin/python trainer_pure.py +tmaze=quickstart run_dir=$$run && \
	$(VENV)/bin/python scripts/plot.py $$run

test: setup
	$(VENV)/bin/python -m pytest

lint: setup
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/ty check --python $(VENV)
