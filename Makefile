.DEFAULT_GOAL := help
.PHONY: help setup setup-dev lock wheel demo browser test test-quick test-long test-kill check audit format bench clean

PYTHON ?= python3
PY := .venv/bin/python
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable,$(shell command -v $(name))))
export CHROMIUM
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# LOCKED=1 also pins what our requirements require, and refuses a file that is not the one that was tested.
REQUIREMENTS = $(if $(filter-out 0,$(LOCKED)),--require-hashes -r requirements$(1).lock,-r requirements$(1).txt)
# uv heeds no upper bound of requires-python, and pip does: newer ones than these are for Python 3.10 and older alone.
LOCK = echo 'backports-strenum<1.3' | .venv/bin/uv pip compile --constraints /dev/stdin pyproject.toml --universal --python-version 3.11 --no-strip-extras --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  make demo takes DATA=folder ROUNDS=n ARCHITECTURE=name TOPOLOGY=direct EXIT=1"
	@echo "  make setup and setup-dev take LOCKED=1, make lock takes UPGRADE=1"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	@echo "Installing what requirements.txt pins (about 2 GB, most of it TensorFlow) ..."
	$(PIP) $(call REQUIREMENTS,)
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(PIP) $(call REQUIREMENTS,-dev)
	@touch $@

setup: .venv/.installed  ## Make .venv and install what running needs

setup-dev: .venv/.installed-dev  ## Also install what tests and checks need

# The .txt files hold what pyproject.toml pins; the .lock files all that comes with it, with hashes, for Linux and
# macOS on x86_64 and ARM, Python 3.11 to 3.13. The largest lock is made first: the others take their versions from it.
lock: setup-dev  ## Write the requirement and lock files from pyproject.toml (asks the package index)
	$(LOCK) --extra dev --no-deps -o requirements-dev.txt
	$(LOCK) --extra server --extra train --no-deps -o requirements.txt
	$(LOCK) --extra edge --no-deps -o requirements-edge.txt
	$(LOCK) --extra dev --generate-hashes $(if $(UPGRADE),--upgrade) -o requirements-dev.lock
	$(LOCK) --extra server --extra train --generate-hashes -c requirements-dev.lock -o requirements.lock
	$(LOCK) --extra edge --generate-hashes -c requirements-dev.lock -o requirements-edge.lock

wheel: setup-dev  ## Build dist/*.whl
	.venv/bin/uv build --quiet --wheel --out-dir dist

demo: setup  ## Draw pictures, start all four services, run rounds, show what was learned
	@$(PY) -m federation demo $(if $(DATA),--data "$(DATA)") $(if $(ROUNDS),--rounds "$(ROUNDS)") \
		$(if $(ARCHITECTURE),--architecture "$(ARCHITECTURE)") $(if $(TOPOLOGY),--topology "$(TOPOLOGY)") \
		$(if $(filter-out 0,$(EXIT)),--exit)

# Tests of pages need a real Chromium, and letters to write with; as root on Debian they are installed.
browser:
	@test -n "$(CHROMIUM)" || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
		{ echo "Chromium is missing, and the tests of pages need it: install it, or say where it is with make CHROMIUM=/path"; exit 1; }

test: setup-dev browser  ## Run every test
	$(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-quick: setup-dev  ## Run what needs no TensorFlow, browser, PostgreSQL or services, in a minute
	$(PY) -m pytest --quick --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: setup-dev browser  ## Run every test, and variants that start whole federations once more
	$(PY) -m pytest --long --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-kill: setup-dev  ## Kill every service in every step of a round, and finish the round
	$(PY) -m pytest tests/kill --every-kill

check: setup-dev  ## Lint, format, types, layers: ruff, mypy, import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

audit: setup-dev  ## Look for known weaknesses: bandit in the code, pip-audit in what is installed (asks the network)
	.venv/bin/bandit --quiet --recursive shared dataset device sec_agg main_server federation wsgi1.py wsgi2.py wsgi3.py wsgi4.py
	.venv/bin/pip-audit --requirement requirements.txt --no-deps --disable-pip

format: setup-dev  ## Put the code into shape
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: docs
docs: setup-dev  ## Renew the generated pages of docs/reference: settings and commands
	$(PY) -m federation.reference

.PHONY: images
images: setup-dev browser  ## Run the demo, and renew the README's pictures in docs/images
	$(PY) -m tests.readme_pictures

bench: setup-dev  ## Print the figures that the project promises
	$(PY) -m benchmarks

clean:  ## Remove what demonstrations made (not your own federation, and not .venv)
	rm -rf var/demo
