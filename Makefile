# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# The goals were set on Python 3.13; where there is none, `make bench` measures on $(PYTHON).
BENCH_PYTHON ?= $(shell for p in python3.13 $(HOME)/.pyenv/versions/3.13.*/bin/python $(PYTHON); \
	do "$$p" -c '' 2>/dev/null && echo "$$p" && break; done)

# Worlds of a simulation, or the one that is shown; seconds of a soak.
SEEDS   ?= 20000
SEED    ?=
SECONDS ?= 600

.PHONY: demo test coverage lint simulate soak bench bench-live bench-redis clean

demo: $(VENV)/.examples
	$(BIN)/python -m examples.demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# The core is the account itself: nearly every branch of it has to be run by its own tests.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/core
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='src/budgetware/_core/*' --fail-under=98

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The whole exchange on virtual time, from one seed for each world; `SEED=4711` shows that one.
simulate: $(VENV)/.dev
	$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

# A real server with everything on, under real clients, with a Redis that comes and goes.
soak: $(VENV)/.dev
	$(BIN)/python -m soak --seconds $(SECONDS)

bench:
	$(BENCH_PYTHON) benchmarks/run.py

# Real servers under open-loop overload; a part of `bench`, some five minutes.
bench-live:
	$(BENCH_PYTHON) benchmarks/run.py --only live

# A Redis killed, frozen and brought back under 1,000 requests per second; a part of `bench`, a minute.
bench-redis:
	$(BENCH_PYTHON) benchmarks/run.py --only redis_down

clean:
	rm -rf $(VENV) benchmarks/.env benchmarks/results

# `--group` needs pip 25.1; a fresh venv may carry an older one.
$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.examples: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group examples
	touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@
