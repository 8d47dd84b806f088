PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check test-real benchmark clean

setup: .venv/ready .dev/servemark

# --no-compile: byte code is written for what is used, which keeps the install a quarter smaller.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	touch $@

# setuptools maps the folders onto one import package; mypy and IDEs cannot follow that, so they get links.
.dev/servemark:
	mkdir -p $@
	for folder in harness adapters workloads results dashboards; do ln -sfn ../../$$folder $@/$$folder; done

demo: .venv/ready
	$(BIN)/bench run --target sim --workload chat --duration 15s --warmup 3s

test: setup
	$(BIN)/pytest -m 'not real'

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py tests/test_packaging.py

# Installs the servers it needs, once (some minutes): docs/real-servers.md. One that cannot start is a failure.
test-real: setup
	$(BIN)/pytest -m real tests/real

# About four minutes; needs two quiet cores and a C compiler. docs/accuracy.md keeps its table.
benchmark: setup
	$(BIN)/python benchmarks/accuracy/run.py

clean:
	rm -rf .venv .dev build dist *.egg-info
