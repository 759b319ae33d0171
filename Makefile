# `make` alone prints this list. Everything happens in .venv and build/; nothing else is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := -m pytest -n auto --dist worksteal # tests/conftest.py says in how many processes
CORE   := pyproject.toml CMakeLists.txt $(wildcard csrc/*.cc csrc/*.h csrc/kernels/*.cc csrc/kernels/*.h)

help:       ## print the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

demo: $(VENV)/installed  ## build, install, and let the shipped model tell a story
	$(BIN)/influence generate "Once upon a time" -m demo

test: $(VENV)/tests  ## run every test that this machine can run
	$(BIN)/python $(PYTEST)

test-gpu: $(VENV)/tests  ## run the goldens and laws on the GPU of this machine (`make parity` brings torch)
	INFLUENCE_TEST_GPU=1 $(BIN)/python -m pytest tests/engines

parity: $(VENV)/tests  ## install torch and transformers, so that `make test` compares with them too
	$(BIN)/pip install -q --group parity

clients: $(VENV)/tests  ## install the clients that `make test` lets speak with the server besides ours (800 MB of disk)
	$(BIN)/pip install -q --upgrade --target build/clients/openai2 'openai>=2.54,<3'
	! command -v npm >/dev/null || npm install --silent --prefix build/clients/npm 'openai@>=7.57.0 <8'
	$(PYTHON) -m venv build/clients/lm-eval && build/clients/lm-eval/bin/pip install -q 'lm-eval[api]==0.4.13'

check: $(VENV)/check  ## format, lint, types, and docs that are generated
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*.cc csrc/*.h csrc/kernels/*.cc csrc/kernels/*.h
	$(BIN)/python tools/make_cli_docs.py --check
	$(BIN)/python benchmarks/chart.py --check

fix: $(VENV)/check  ## format all code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .
	$(BIN)/clang-format -i csrc/*.cc csrc/*.h csrc/kernels/*.cc csrc/kernels/*.h

docs: $(VENV)/installed  ## write the generated docs anew
	$(BIN)/python tools/make_cli_docs.py
	$(BIN)/python benchmarks/chart.py

bench: $(VENV)/installed  ## speed of the engine on a random TinyLlama-1.1B (takes minutes, 2.2 GB of disk)
	$(BIN)/python benchmarks/bench_engine.py --shape tinyllama-1.1b

asan: $(VENV)-asan/installed  ## kernel and engine tests under AddressSanitizer and UBSan
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	$(VENV)-asan/bin/python $(PYTEST) tests/engines

$(VENV)/installed: $(CORE)
	test -x $(BIN)/python || ($(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q -U pip)
	$(BIN)/pip install -q -e . && touch $@

$(VENV)/tests: $(VENV)/installed
	$(BIN)/pip install -q --group test && touch $@

$(VENV)/check: $(VENV)/tests
	$(BIN)/pip install -q --group check && touch $@

$(VENV)-asan/installed: $(CORE)
	test -x $(VENV)-asan/bin/python || ($(PYTHON) -m venv $(VENV)-asan && $(VENV)-asan/bin/pip install -q -U pip)
	$(VENV)-asan/bin/pip install -q -e . --group test -C cmake.define.INFLUENCE_SANITIZE=ON -C build-dir=build/asan && touch $@

.PHONY: help demo test test-gpu parity clients check fix docs bench asan
.DEFAULT_GOAL := help
