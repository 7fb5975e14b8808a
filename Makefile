# From a fresh machine with Python 3.11 or later and make: `make demo`, `make test`.
# Everything lands in .venv and .tools; nothing outside this folder is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Every package is held to a hash in a lock file, those that build the others included: these come first, and
# nothing is built with a tool that was fetched on the side.
INSTALL := DIST_EXTRA_CONFIG=$(CURDIR)/.ci/wheels.cfg $(PIP) install --quiet --require-hashes --no-build-isolation
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

DYNOXIDE_VERSION := 1.2.1
DYNOXIDE_SHA512 := sBHqlxJ9ANkLluFkYRfd5r8Y0ApFew4FhOrlhgRAgD4XzEoFOukEo1nuBTQ1+jTtofqwn4NWQ2k0Tn5mNTjgUg==
DYNOXIDE := .tools/dynoxide/dynoxide

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint format type check lock upgrade wheel sbom docs perf perf-smoke perf-scenarios perf-compare \
	perf-check schemathesis test-feast tools clean wheel-compiled compiled test-compiled

help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is %d.%d: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: requirements-build.lock | $(BIN)/python
	$(PIP) install --quiet --require-hashes --only-binary :all: -r requirements-build.lock
	@touch $@

# The project itself is installed in place, so that only a change of its metadata asks for a new installation, or one of
# its inner loops in C, which are compiled with it where there is a compiler.
NATIVE := fastserve/api/_float_text.c fastserve/store/dynamodb/_plain_rows.c fastserve/tiles/_head_merge.c fastserve/tiles/_merge_loop.c
NATIVE_HEADERS := fastserve/api/_float_text_avx512.h fastserve/tiles/_words.h
NATIVE_PERF := perf/load/_prepared_answer.c
$(VENV)/.installed: requirements.lock pyproject.toml $(NATIVE) $(NATIVE_HEADERS) $(wildcard $(NATIVE_PERF)) $(VENV)/.build-tools | README.md LICENSE
	$(INSTALL) -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(INSTALL) -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.installed  ## Materialize 336,776 flights, serve them on 127.0.0.1:8080, print a vector
	$(BIN)/fastserve demo

# Tests start some two hundred servers and commands. Each would compile all modules anew where Python is told to
# leave no bytecode behind, which takes it as long again as to import them.
test: $(VENV)/.installed-dev tools  ## Run every test (PYTEST_ARGS="..." for a part)
	$(BIN)/python -m compileall -q fastserve perf tests/support
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-long: export EXAMPLES_FACTOR := 10
test-long: test  ## Run every test, the costly properties with ten times as many examples

# A second implementation of DynamoDB to test against, a binary for Linux on x86-64. Unpacked only if it is the very
# file that was looked at; its absence skips tests, which CI doesn't allow.
tools:
	@if [ -x $(DYNOXIDE) ]; then :; \
	elif [ "$$(uname -sm)" != "Linux x86_64" ]; then \
		echo "dynoxide is a binary for Linux on x86-64: the tests that need it will be SKIPPED"; \
	elif command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory $(DYNOXIDE); \
	else echo "npm is not installed: the tests that need dynoxide will be SKIPPED"; fi

$(DYNOXIDE):
	@rm -rf .tools/pack && mkdir -p .tools/pack $(@D)
	cd .tools/pack && npm pack --silent @dynoxide/linux-x64@$(DYNOXIDE_VERSION)
	@$(PYTHON) -c 'import base64, hashlib, pathlib, sys; \
	(file,) = pathlib.Path(".tools/pack").glob("*.tgz"); \
	got = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode(); \
	got == sys.argv[1] or sys.exit("%s: expected sha512 %s, got %s" % (file, sys.argv[1], got))' $(DYNOXIDE_SHA512)
	tar -xzf .tools/pack/*.tgz -C $(@D) --strip-components 1
	@rm -rf .tools/pack && touch $@ && chmod +x $@

lint: $(VENV)/.installed-dev  ## Check rules and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev  ## Mend what can be mended without thought
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.installed-dev  ## Check types
	$(BIN)/mypy

check: lint type test  ## All of these

docs: $(VENV)/.installed  ## Make the pages that are made from code
	$(BIN)/python -c 'import pathlib; from fastserve.config import settings_markdown; \
	pathlib.Path("docs/settings.md").write_text(settings_markdown(), encoding="utf-8")'
	$(BIN)/python -c 'import pathlib; from fastserve.server.metrics_table import metrics_markdown; \
	pathlib.Path("docs/metrics.md").write_text(metrics_markdown(), encoding="utf-8")'
	$(BIN)/python -c 'import pathlib; from docs.make_reference import reference_markdown; \
	pathlib.Path("docs/reference.md").write_text(reference_markdown(), encoding="utf-8")'

# Versions that satisfy pyproject.toml stay as they are; `make upgrade` asks for the newest ones. Needs uv.
lock:  ## Make the lock files from pyproject.toml
	$(UV_COMPILE) $(UV_FLAGS) pyproject.toml -o requirements.lock
	$(UV_COMPILE) $(UV_FLAGS) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	printf 'editables\nhatchling\nsetuptools\n' | $(UV_COMPILE) - -c requirements-dev.lock -o requirements-build.lock
	printf 'editables\nhatchling\nmypy\nsetuptools\n' | $(UV_COMPILE) - -c requirements-dev.lock -o requirements-compile.lock

upgrade:  ## Make the lock files with the newest versions
	$(MAKE) lock UV_FLAGS=--upgrade

wheel: $(VENV)/.installed-dev  ## Build dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build --no-isolation

wheel-compiled: $(VENV)/.installed-dev  ## Build dist/*.whl with compiled modules (needs a C compiler)
	FASTSERVE_COMPILED=1 $(BIN)/python -m build --no-isolation --wheel

# A copy of the checkout in which these modules are compiled, so that none here is run in place of its source.
COMPILED := build/compiled
OPT_LEVEL ?= 2
compiled: $(VENV)/.installed-dev  ## Make the compiled build in build/compiled, where tests and perf run on it
	rm -rf $(COMPILED)
	mkdir -p $(COMPILED)
	cp -r docs examples perf tests pyproject.toml README.md $(COMPILED)/
	$(BIN)/python deploy/compiled.py $(COMPILED) --opt-level $(OPT_LEVEL)

# What a compiled module could do otherwise than its source: every kind of request, value and failure on its way.
COMPILED_TESTS := tests/compiled/both_builds.py tests/server/test_golden_requests.py tests/server/test_fuzzed_requests.py \
	tests/server/test_feast_handler.py tests/server/test_streamed_application.py tests/server/test_cached_rows.py \
	tests/server/test_tracing.py tests/server/test_slow_log.py tests/server/console/test_trial.py \
	tests/api/test_metadata.py tests/api/test_encode.py tests/api/test_encode_on_demand.py \
	tests/serving/test_vectors.py tests/serving/test_coalescer.py tests/serving/test_stores.py tests/differential/test_services.py \
	tests/integration/test_serving.py tests/integration/test_on_demand.py tests/store/dynamodb/test_reader.py
test-compiled: compiled  ## Run the tests that concern the compiled build on it (PYTEST_ARGS="..." for more)
	cd $(COMPILED) && $(CURDIR)/$(BIN)/python -m pytest -n auto --dist loadfile $(COMPILED_TESTS) $(PYTEST_ARGS)

sbom: | $(BIN)/python  ## Write dist/sbom.cdx.json: what the server runs with, as CycloneDX
	@mkdir -p dist
	$(BIN)/python deploy/sbom.py requirements.lock pyproject.toml > dist/sbom.cdx.json

# Short rounds, so that all shapes have had their turns within five minutes. For figures to quote: an idle machine.
perf: $(VENV)/.installed-dev  ## Measure a request's CPU beside the bare server, the floor and the budget
	$(BIN)/python -m perf table --rounds 3 --duration-s 1.5 --warmup-s 0.5 $(PERF_ARGS)

perf-smoke: $(VENV)/.installed-dev  ## A minute's look at the hot path
	$(BIN)/python -m perf smoke

perf-scenarios: $(VENV)/.installed-dev  ## Reproduce the article's two scenarios: figures, pages and pictures
	$(BIN)/python -m perf scenario1 $(PERF_ARGS)
	$(BIN)/python -m perf scenario2 $(PERF_ARGS)

perf-compare: $(VENV)/.installed-dev  ## Measure the SDK, FastAPI and Feast beside us (installs them in .tools)
	$(BIN)/python -m perf compare $(PERF_ARGS)

test-feast: $(VENV)/.installed-dev tools  ## Let Feast's own SDK read through us and compare (installs it in .tools)
	$(BIN)/python -m perf.compare.feast.own_sdk

perf-check: $(VENV)/.installed-dev  ## Say what got slower since BASE=commit, by instructions (needs valgrind)
	@test -n "$(BASE)" || { echo "BASE: expected a commit, as in make perf-check BASE=main"; exit 2; }
	$(BIN)/python -m perf.micro.check $(BASE) $(PERF_ARGS)

schemathesis: $(VENV)/.installed-dev  ## Hold the server against its own OpenAPI document (installs schemathesis in .tools)
	$(BIN)/python -m perf.schemathesis $(PERF_ARGS)

clean:  ## Remove everything made here, the demo's store included
	rm -rf $(VENV) .tools .fastserve build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
