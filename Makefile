.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo browser test test-long test-kill check audit format bench clean

PYTHON ?= python3
PY := .venv/bin/python
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable,$(shell command -v $(name))))
export CHROMIUM
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  make demo takes DATA=folder ROUNDS=n ARCHITECTURE=name TOPOLOGY=direct EXIT=1"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	@echo "Installing what requirements.txt pins (about 2 GB, most of it TensorFlow) ..."
	$(PIP) -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(PIP) -r requirements-dev.txt
	@touch $@

setup: .venv/.installed  ## Make .venv and install what running needs

setup-dev: .venv/.installed-dev  ## Also install what tests and checks need

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

.PHONY: images
images: setup-dev browser  ## Run the demo, and renew the README's pictures in docs/images
	$(PY) -m tests.readme_pictures

bench: setup-dev  ## Print the figures that the project promises
	$(PY) -m benchmarks

clean:  ## Remove what demonstrations made (not your own federation, and not .venv)
	rm -rf var/demo
