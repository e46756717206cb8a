# make               set up, run the stale stages, show the results
# make test          set up, lint, check types, run the tests
# make test-slow     the slow tests: whole pipelines, servers and clusters
# make test-browser  `make`, then the tests of `fashion demo`'s page in Chromium or Chrome, which must be installed;
#                    SCREENSHOTS=reports/demo updates the README's screenshots
# make setup         set up .venv only
# make doctor        check this machine
# make bench         measure speed and cost against baselines: half an hour to an hour on an otherwise idle machine
# make drill         break the pipeline, its inputs, the demo and a Ray cluster in many ways and check that they recover:
#                    50 minutes, on Linux; some parts need root
# make format        format the code
# make deps          write the dependencies of the stages into dvc.yaml
# make lock          update requirements.lock
#
# Programs of .venv are called by their path: the make of macOS (3.81) ignores an exported PATH when it starts programs.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
# PYTHONPATH, PYTHONHOME etc. would load other code.
unexport $(filter PYTHON%,$(.VARIABLES))
export PYTHONUTF8 := 1
# DVC runs the stages in this shell.
export SHELL := /bin/sh

run: setup
	@$(BIN)/fashion run

test: setup
	@"$(PYTHON)" -I -X utf8 fashion/environment.py check-temporary-folder
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	$(BIN)/actionlint
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(BIN)/zizmor --offline --quiet .github action.yml
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-browser: run
	$(BIN)/pytest -m browser tests/test_browser.py

bench: setup
	$(BIN)/python -m benchmarks.run

drill: setup
	$(BIN)/python -m tests.drill.run

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

deps: setup
	$(BIN)/python -m fashion.dvc_deps

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest --upgrade \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

setup doctor:
	@command -v "$(PYTHON)" > /dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found (PYTHON='$(PYTHON)'); set it: make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -I -X utf8 fashion/environment.py $@

.PHONY: run test test-slow test-browser bench drill format deps lock setup doctor
