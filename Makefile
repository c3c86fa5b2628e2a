# make demo       set up, then run the main job on a phantom cohort: DICOM in, train, translate, DICOM out, evaluate, report
# make test       the fast tests
# make test-all   all tests, minutes of training among them
# make test-oldest  the fast tests with the oldest versions that pyproject.toml takes (of torch that is 5 GB)
# make check      ruff and mypy
# make docs       the documentation as HTML in site/

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all test-oldest check docs clean

demo: .venv/installed
	$(BIN)/medgan demo --out demo

# Two processes share the tests; threads of their own would wait for one another.
test test-all test-oldest: export OMP_NUM_THREADS = 1

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ""

test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile

check: .venv/installed
	$(BIN)/ruff check medgan tests tools
	$(BIN)/ruff format --check medgan tests tools
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# Written last, so that an installation that was interrupted is done again.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --progress-bar off --quiet -c constraints.txt -e '.[dev]'
	touch $@

.venv-oldest/installed: pyproject.toml tests/oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --disable-pip-version-check --progress-bar off --quiet -c tests/oldest.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-oldest demo site build *.egg-info
