# make demo: draw the example graphs and hold estimates against exact gradients, into out/
# make test: lint, check types and run the tests
# make docs: bring the outputs shown in the documentation up to date
PYTHON ?= python3
BIN := .venv/bin

.NOTPARALLEL:
.PHONY: demo test docs clean

demo: .venv/demo.stamp
	$(BIN)/python -m scg demo --out out

test: .venv/test.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy scg
	$(BIN)/python -m pytest -n 2 -q

docs: .venv/test.stamp
	PYTHONPATH=. $(BIN)/python tests/docs/blocks.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[draw]"
	touch $@

.venv/test.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[draw,test,dev]"
	touch $@

clean:
	rm -rf .venv out build
