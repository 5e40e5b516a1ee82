# make demo: the toy experiment, small, and the example graphs with estimates against exact gradients, into out/
# make test: lint, check types and run the tests
# make fuzz: hold many more random graphs against exact gradients
# make bench: print how compiling grows, and a step against the same loop by hand
# make docs: bring the outputs shown in the documentation up to date
PYTHON ?= python3
BIN := .venv/bin

.NOTPARALLEL:
.PHONY: demo test fuzz bench docs clean

demo: .venv/demo.stamp
	$(BIN)/python -m scg demo --out out

test: .venv/test.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy scg
	$(BIN)/python -m pytest -n 2 -q

fuzz: .venv/test.stamp
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q tests/contract/test_random_graphs.py

bench: .venv/demo.stamp
	$(BIN)/python benchmarks/compile_growth.py
	$(BIN)/python benchmarks/chain_step.py

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
