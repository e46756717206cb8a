# make        set up, fetch the data, run every stage that is not up to date, show the results
# make test   set up, lint, check types, run the tests
# make test-browser  `make`, then tests of the page of `fashion demo` in a browser: Chromium or Chrome must be there;
#             PICTURES=reports/demo takes the README's pictures of it anew
# make bench  measure speed and cost against baselines, in half an hour to an hour; the machine must do nothing else
# make format rewrites the code in the project's style; make deps and make lock write dvc.yaml's code dependencies and
#             requirements.lock anew

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=  # keep compiled modules: without them TensorFlow takes three times as long to start
export PATH := $(CURDIR)/$(BIN):$(PATH)

run: .venv/ready
	@dvc repro
	@fashion results
	@echo
	@echo "Open $(CURDIR)/reports/index.html"

test: .venv/ready
	ruff check
	ruff format --check
	lint-imports --no-logo
	mypy
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	actionlint
	zizmor --offline --quiet .github
	pytest --numprocesses 2 --dist loadfile

test-browser: run
	pytest -m browser tests/test_browser.py

bench: .venv/ready
	python -m benchmarks.run

format: .venv/ready
	ruff check --fix
	ruff format

deps: .venv/ready
	python -m fashion.contract

lock: .venv/ready
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest --upgrade \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock

.venv/ready: requirements.lock pyproject.toml .dvc/plots/page.py
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and none was found; name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.txt
	uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	python .dvc/plots/page.py
	dvc config --local plots.html_template plots/page.html  # not in .dvc/config: without the page DVC would fail
	@touch $@

.PHONY: run test test-browser bench format deps lock
