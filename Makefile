# make demo: a tour in two minutes, as one page: out/index.html
# make test: lint, check types and run the tests
# make quick: lint and run what takes less than a minute
# make fuzz: hold many more random graphs, pairs of options, compiled programs and programs with a hidden defect
#   against what they should give, and count the last by class
# make mutants: serve deliberate defects of the compiler from memory, one at a time, and see that tests notice (some
#   minutes); python tests/mutants.py --list prints them
# make bench: steps against the same by hand and in other libraries, and growth, into out/bench (half an hour)
# make bench-check: hold ratios to the stored ones
# make versions: run the README and the tests of torch.compile on the oldest and the newest torch that are declared,
#     each in an environment of its own under build/ (torch as its package index has it: gigabytes with CUDA)
# make docs: bring the outputs shown in the documentation up to date
PYTHON ?= python3
BIN := .venv/bin
OLDEST := $(shell sed -n 's/.*"torch>=\([0-9.]*\).*/\1/p' pyproject.toml)
NEWEST := $(shell sed -n 's/^torch==//p' constraints.txt)

.NOTPARALLEL:
.PHONY: demo test quick fuzz mutants bench bench-check versions docs clean

demo: .venv/demo.stamp
	$(BIN)/python -m scg demo --out out --overwrite

test: .venv/test.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy scg
	$(BIN)/python -m pytest -n 2 -q

quick: .venv/test.stamp
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -n 2 -q tests/nodes tests/test_schulman.py tests/test_arrows.py tests/test_public_names.py \
		tests/estimators/protocol tests/choosing tests/analysis/test_crossing.py

fuzz: .venv/test.stamp
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q tests/contract tests/truth tests/truth/put_back.py \
		tests/probes/test_operators.py tests/probes/test_operators_apart.py tests/probes/test_bounded.py \
		tests/oracle tests/program/test_compile.py tests/program/test_ranks.py tests/test_noise.py \
		tests/analysis/test_paths.py tests/laws/test_relaxable.py tests/probes/test_smoothness.py \
		tests/choosing/test_parts.py tests/testing tests/verification

mutants: .venv/test.stamp
	$(BIN)/python tests/mutants.py

bench: .venv/bench.stamp
	$(BIN)/python -m benchmarks

bench-check: .venv/bench.stamp
	$(BIN)/python -m benchmarks --check

versions: build/torch-$(OLDEST).stamp build/torch-$(NEWEST).stamp
	for version in $(OLDEST) $(NEWEST); do \
		build/torch-$$version/bin/python -m pytest -q tests/docs/test_readme.py tests/program/test_compile.py || exit 1; \
	done

docs: .venv/test.stamp
	PYTHONPATH=. $(BIN)/python tests/docs/blocks.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

build/torch-%.stamp: pyproject.toml
	$(PYTHON) -m venv build/torch-$*
	build/torch-$*/bin/python -m pip install "torch==$*" -e ".[draw,test]"
	touch $@

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[draw]"
	touch $@

.venv/test.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[draw,test,dev]"
	touch $@

.venv/bench.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[draw,bench]"
	touch $@

clean:
	rm -rf .venv out build
