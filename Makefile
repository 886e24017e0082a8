# make run    executes the notebooks and prints where their report lies; all it needs is Python 3.11 or newer
# make test   checks everything: style, types, tests, notebooks, a real browser
# make lab    opens JupyterLab
# make lint, make benchmark, make siege, make models, make lock, make clean: see below
#
# Another Python: make run PYTHON=python3.13. Another environment: make run VENV=/some/where.
# A CPU-only torch: make run PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip, told by its larger steps only; its errors and its exit code stay
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt
BRIEFLY = | awk '/(Downloading|Processing) .* [MG]B\)/ {print "  " $$2, $$3, $$4} /^Installing/ {print "  unpacking"} {fflush()}'
OUT ?= runs

.PHONY: run test lab lint benchmark sweep siege models lock clean chromium

run: $(VENV)/installed-models
	$(BIN)/atlaskit run --out $(OUT)

# One BLAS thread for each of the two workers; a kernel or a browser stays on the worker that started it.
test: lint chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m "not sweep and not siege"

lab: $(VENV)/installed-models
	$(BIN)/jupyter lab notebooks

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Timings are printed, never asserted; alone, so that nothing disturbs them.
benchmark: $(VENV)/installed-dev
	for bench in tests/benchmarks/bench_*.py; do $(BIN)/python "$$bench"; done

# Every architecture that transformers knows, and every pattern trained; an hour.
sweep: $(VENV)/installed-dev
	$(BIN)/pytest -m sweep
	$(BIN)/python tests/shared/support.py

# A hundred runs under random kills, and a cluster of three hosts in network namespaces (as root); minutes.
siege: $(VENV)/installed-dev
	$(BIN)/pytest -m siege

# Trains the bundled models again from their recipe.
models: $(VENV)/installed-dev
	$(BIN)/python -m atlaskit.data.recipe

# Installing again happens only when one of these two files changed.
$(VENV)/installed-models: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing atlaskit and its models into $(VENV); the first time this takes some minutes"
	@$(PIP_INSTALL) -e '.[models]' $(BRIEFLY)
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing atlaskit with its tests into $(VENV); the first time this takes some minutes"
	@$(PIP_INSTALL) -e '.[dev]' $(BRIEFLY)
	@touch $@ $(VENV)/installed-models

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "atlaskit needs Python 3.11 or newer; say which: make run PYTHON=python3.12" >&2; exit 1; }
	@echo "making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -f $(BIN)/python; \
	  echo "this Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# Without a Chromium the browser tests fail, with the same message; they are never skipped.
chromium:
	@if [ -n "$${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null; then exit 0; fi; \
	as_root=""; [ "$$(id -u)" = 0 ] || as_root="sudo -n"; \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null; then \
	  echo "installing chromium and fonts-dejavu-core for the browser tests"; \
	  $$as_root apt-get update -qq && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    chromium fonts-dejavu-core >/dev/null && exit 0; \
	fi; \
	echo "the browser tests need a Chromium: install the packages chromium and fonts-dejavu-core, or set CHROMIUM" >&2

# Renews constraints.txt from what a fresh environment resolves to today. torch stays where it is pinned, without the
# suffix of the local build, and what only a CUDA build of it brings along is left to it.
lock:
	@new="$$(mktemp -d)"; trap 'rm -rf "$$new"' EXIT; \
	grep '^torch==' constraints.txt > "$$new/torch.txt"; \
	echo "resolving a fresh environment; this takes some minutes"; \
	$(PYTHON) -m venv "$$new/venv"; \
	"$$new/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$$new/torch.txt" '.[dev,spacy]'; \
	{ echo "# Exact versions for reproducible runs; pyproject.toml holds the ranges. Renew with: make lock"; \
	  cat "$$new/torch.txt"; \
	  "$$new/venv/bin/python" -m pip freeze | grep -Eiv '^(torch|atlaskit|triton|nvidia-|cuda-)'; } > "$$new/all.txt"; \
	mv "$$new/all.txt" constraints.txt; \
	echo "wrote constraints.txt"

# Removes what make and the tools made. runs/ holds results and stays.
clean:
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
