# Thin targets; each one sets up .venv first. `make demo` and `make test` work in a fresh clone.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
WORKERS ?= 2
# One thread a worker: two workers with two threads each would fight over two cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal
# Strict: a link, an anchor or a name that leads nowhere fails the build, and so does a page in no table of contents.
SPHINX := $(PY) -m sphinx -W --keep-going -n -q -b html docs build/docs

.PHONY: demo compare bench test test-kernels test-all check docs report format clean

# Its steps are sized to this budget, the install aside: make demo MINUTES=30
MINUTES ?= 12

demo: $(VENV)/.experiments
	$(PY) -m experiments.demo --minutes $(MINUTES)

# make compare ARGS='model=minilm tasks=[ha_intent] slots=2'
compare: $(VENV)/.experiments
	$(PY) -m experiments.compare $(ARGS)

BENCHES := lora_linear lora_group multi_lora dropout dora adapter prefix ce verbs train_step report

bench: $(VENV)/.dev
	for name in $(BENCHES); do $(PY) -m benchmarks.bench_$$name || exit 1; done
	$(PY) -m benchmarks.plots

test: check
	$(PYTEST) -m "not slow and not kernels"

test-kernels: $(VENV)/.dev
	$(PYTEST) tests/kernels

test-all: check
	$(PYTEST)

check: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
	$(SPHINX)

docs: $(VENV)/.dev
	$(SPHINX)

# The committed results as one HTML page.
report: $(VENV)/.experiments
	$(PY) -m experiments.report experiments/results --out build/report.html \
		--title "The committed runs, which are no ranking of methods"

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# runs/ stays: its results cost hours.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.experiments: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -c constraints.txt -e '.[experiments]'
	touch $@

$(VENV)/.dev: $(VENV)/.experiments
	$(PY) -m pip install -c constraints.txt -e '.[experiments,dev]'
	touch $@
