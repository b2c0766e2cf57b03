# Two commands do everything: `make demo` runs the platform on simulated downlink,
# `make test` runs the tests. Both set up what they need in $(VENV).

PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready

# Hundreds of processes start here: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

FUZZ_SECONDS ?= 600
SHARD ?= 0

.PHONY: demo dev test test-slow test-shard browser stilts fuzz soak lint docs benchmark lock clean help

help:
	@echo "make demo        simulate a downlink, make and archive its products, print what was made"
	@echo "make dev         the Dagster UI and daemon on this project"
	@echo "make test        the tests"
	@echo "make test-slow   the slow tests: 18 detectors, full size, many kills"
	@echo "make test-shard  one of eight shards of the slow tests: SHARD=number, modulo 8"
	@echo "make browser     what the tests in a browser need, where root on Debian"
	@echo "make stilts      validators of the Virtual Observatory for the tests, where root on Debian"
	@echo "make fuzz        every fuzz target for FUZZ_SECONDS (600)"
	@echo "make soak        a night of 30 minutes in which everything around the platform fails"
	@echo "make lint        ruff, mypy, import-linter and codespell"
	@echo "make docs        the docs as web pages in build/docs/"
	@echo "make benchmark   every benchmark"
	@echo "make lock        update every dependency, and report what changed"

demo: $(READY)
	$(VENV)/bin/roman-assets demo

dev: $(READY)
	$(VENV)/bin/roman-assets dev

# Two processes, a module in one of them: its fixtures are made once, and some tell a story from
# test to test.
test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow -o timeout=7200

# A module stays in one process: some tell a story from test to test.
test-shard: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m slow -o timeout=7200 \
	    --slow-shard=$(SHARD)

# Without them the tests in a browser do not run, as the end of the run says.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || { test "$$(id -u)" = 0 \
	    && command -v apt-get >/dev/null && apt-get update -qq \
	    && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
	    || echo "no Chromium: install Debian's packages chromium and chromium-driver" >&2

# Without it the validators of the Virtual Observatory do not run, as the end of the run says.
stilts:
	@command -v stilts >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	    && apt-get update -qq && apt-get install -y -qq --no-install-recommends stilts; } \
	    || echo "no STILTS: install Debian's package stilts" >&2

fuzz: $(READY)
	$(VENV)/bin/python -m pytest -n 2 -o timeout=7200 --fuzz-seconds=$(FUZZ_SECONDS) roman_assets_tests/fuzz

soak: $(READY)
	$(VENV)/bin/python -m pytest -m slow -o timeout=7200 --soak-minutes=30 roman_assets_tests/soak

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell

# Any warning is an error: a link to nowhere, a page that no other page leads to.
docs: $(READY)
	$(VENV)/bin/sphinx-build --quiet -W --keep-going -j auto -c docs -d build/doctrees . build/docs
	@echo "build/docs/docs/index.html"

benchmark: $(READY)
	for script in benchmarks/*.py; do $(VENV)/bin/python $$script || exit 1; done

lock: $(READY)
	cp requirements.lock $(VENV)/requirements.former
	$(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --upgrade \
	    --python-version 3.11 --all-extras --group dev --group docs \
	    --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@$(VENV)/bin/python .ci/lock_changes.py $(VENV)/requirements.former requirements.lock

# Debian's python3 comes without ensurepip until python3-venv is installed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	    test "$$(id -u)" = 0 \
	    || { echo "install Debian's python3-venv first: sudo apt-get install python3-venv" >&2; exit 1; }; \
	    apt-get update -qq && apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)

# Every version is pinned, so pip needs no resolving.
$(READY): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
