# The verbs of the project; `make help` lists them. Every one of them creates the environment that it needs.

VENV ?= .venv
PYTHON ?=
DEVICE ?= auto
EXTRAS ?=
# Worker processes of the test run, by default one more than cores (tests/conftest.py says why), each of up to
# 1.5 GB; `make test WORKERS=0` for one process and a debugger.
WORKERS ?= logical
# Minutes of stepping for the slope of a GPU's memory: make gpu MINUTES=30
MINUTES ?= 1
# Parts of it that run alone: make gpu PARTS="gpu_batch.training tests"
PARTS ?=
# Further arguments for pytest: make test ARGS="tests/ops -k ladder"
ARGS ?=

# Compiled kernels are shared by all verbs; `make clean` deletes them.
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba
export GPUSCALP_KERNEL_CACHE ?= $(CURDIR)/.cache/kernels

# Containers often forbid it: then each of the hundreds of processes of a test run would compile all sources.
unexport PYTHONDONTWRITEBYTECODE

STAMP := $(VENV)/gpuscalp-ready
RUN := $(VENV)/bin/python

# DEVICE, EXTRAS or PYTHON given by hand that differ from what is installed make the environment out of date.
WANTED := $(DEVICE) $(EXTRAS) $(PYTHON)
ifneq (,$(findstring command line,$(origin DEVICE)$(origin EXTRAS)$(origin PYTHON)))
ifneq ($(strip $(WANTED)),$(strip $(shell cat $(STAMP) 2>/dev/null)))
.PHONY: $(STAMP)
endif
endif

.PHONY: help setup demo test lint check bench gpu wheel constraints clean
.DEFAULT_GOAL := help

help:  ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*## /  make \1  /p' Makefile

$(STAMP): pyproject.toml constraints.txt constraints-cuda12.txt scripts/setup_venv.sh scripts/detect_device.py
	@VENV="$(VENV)" PYTHON="$(PYTHON)" DEVICE="$(DEVICE)" EXTRAS="$(EXTRAS)" sh scripts/setup_venv.sh
	@echo "$(WANTED)" > $@

setup: $(STAMP)  ## create .venv: DEVICE=auto|cpu|cuda13|cuda12, PYTHON=, EXTRAS=ray,mlflow
	@$(RUN) -m gpuscalp version

demo: $(STAMP)  ## synthetic market, training, backtest and report; needs no network and no files
	@$(RUN) -m gpuscalp demo

test: $(STAMP)  ## all tests that this machine can run
	@$(RUN) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)  ## format, style and types, without tests
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy gpuscalp
	@# The two below have wheels for Linux on x86-64 only.
	test ! -x $(VENV)/bin/shellcheck || $(VENV)/bin/shellcheck scripts/*.sh .ci/run
	test ! -x $(VENV)/bin/hadolint || $(VENV)/bin/hadolint Dockerfile.cuda

check: lint test  ## what must pass before a commit

bench: $(STAMP)  ## benchmarks as ratios to other libraries, after all of their tests
	GPUSCALP_THOROUGH=1 $(RUN) -m pytest -q tests/test_bench*.py tests/worker/test_bench_worker.py
	$(RUN) -m benchmarks $(ARGS)

gpu: $(STAMP)  ## what needs a GPU (none is a failure): benchmarks, tests, sanitizers, verdict; MINUTES=1
	$(RUN) -m benchmarks.gpu_run --minutes $(MINUTES) --parts $(PARTS) -- $(ARGS)

wheel: $(STAMP)  ## build dist/*.whl
	$(RUN) -m build --wheel --no-isolation --outdir dist .

constraints: $(STAMP)  ## resolve the newest versions into constraints*.txt
	PYTHON="$(RUN)" sh scripts/lock.sh

clean:  ## delete the environment and all caches
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
