# `make demo` and `make test` set up everything by themselves; `make help` says what else there is.
# What was fetched or built once is kept in .cache/ (HUBGATE_CACHE names another place) and .venv/.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
SOURCES := proxy hub tests

.DEFAULT_GOAL := help
.PHONY: help demo screenshots stopwatch gallery image test test-quick test-nightly bench bench-quick soak lint format clean clean-all

help:
	@echo "make demo          hubs, Keycloak, Redis and the gateway on this machine; Ctrl-C ends all"
	@echo "                   (MFA=gateway: hubgate asks for the code, not Keycloak; PORT=…; FRESH=1 forgets earlier runs)"
	@echo "make image         the image, by docker, podman or buildah (deploy/image/build says what can be chosen)"
	@echo "make test          every test, with real parts (ALLOW_MISSING=keycloak,chromium leaves some out)"
	@echo "make test-quick    what needs no service, without attacks and large transfers; under a minute"
	@echo "make test-nightly  what takes too long for every change"
	@echo "make bench         what a request costs beside nginx, haproxy, Apache, …; a quarter of an hour; writes docs/performance.md"
	@echo "make bench-quick   the gateway against nginx; in make test, too"
	@echo "make soak          ten minutes of everything at once (SOAK_SECONDS=…, SOAK_SEED=… for others); in make test-nightly, too"
	@echo "make gallery       every page with sample facts, to look at (ARGS=\"--shots DIRECTORY\" takes pictures)"
	@echo "make lint          ruff, mypy, import contracts"
	@echo "make screenshots   docs/images, from a demo; make stopwatch: from a clone without any cache to the first cell that ran"
	@echo "make format        let ruff lay out the code"
	@echo "make clean         remove what tests and builds left; clean-all: environments and downloads, too"

# An environment is made once, and again when pyproject.toml changes. uv does in seconds what takes pip a minute; pip
# brings it, and takes its place where it can't be had.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hubgate needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])' || \
		{ command -v $(PYTHON) >/dev/null || echo "no $(PYTHON) here: make PYTHON=/path/to/python3.11"; exit 1; } >&2
	@echo "  $(VENV)        installing hubgate[$(1)] …"
	@test -x $(BIN)/uv || { \
		$(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check uv; } 2>/dev/null || \
		$(PYTHON) -m venv $(VENV)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python pip --editable '.[$(1)]' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' || { \
		echo "hubgate could not be installed into $(VENV): is there a way to the network, and room on the disk?"; \
		echo "A mirror or a proxy: PIP_INDEX_URL, HTTPS_PROXY. What was fetched is kept; make again goes on."; \
		exit 1; } >&2
	@touch $@
endef

$(VENV)/.demo: pyproject.toml
	$(call install,demo)

$(VENV)/.dev: pyproject.toml
	$(call install,dev)

# The peers are the distribution's packages, and so is the Python that is measured beside them: what a site installs was
# compiled with profiles (PGO), what somebody built for development often was not, and costs a twentieth more.
BENCH_PYTHON ?= $(shell p=/usr/bin/python3; \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p || echo $(BIN)/python)

$(VENV)/.bench: $(VENV)/.dev
	@echo "  $(VENV)/bench  installing hubgate[bench] for $(BENCH_PYTHON) …"
	@$(BIN)/uv venv --quiet --clear --python $(BENCH_PYTHON) $(VENV)/bench
	@$(BIN)/uv pip install --quiet --python $(VENV)/bench/bin/python --editable '.[bench]'
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/hubgate demo $(if $(MFA),--mfa $(MFA)) $(if $(PORT),--port $(PORT)) $(if $(FRESH),--fresh) $(ARGS)

# What README.md shows and says of `make demo`. Say MFA=gateway for the other way.
screenshots: $(VENV)/.dev
	@$(BIN)/python -m tests.browser.screenshots

stopwatch: $(VENV)/.dev
	@$(BIN)/python -m tests.browser.stopwatch $(if $(MFA),MFA=$(MFA))

image:
	@deploy/image/build

gallery: $(VENV)/.dev
	@$(BIN)/python -m tests.gallery $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# core/ decides, and is covered to the last branch by its own tests. Then everything, on real parts.
test: lint
	$(BIN)/coverage run -m pytest -q tests/core
	$(BIN)/coverage report
	@$(BIN)/python -m hubgate.ops.demo.prepare
	$(PYTEST) -m "not nightly" --ignore=tests/core $(ARGS)

test-quick: $(VENV)/.dev
	$(PYTEST) -q --numprocesses auto --hypothesis-profile quick --ignore=tests/attacks --ignore=tests/upstream/test_streaming_memory.py $(ARGS)

test-nightly: $(VENV)/.dev
	@$(BIN)/python -m hubgate.ops.demo.prepare
	$(PYTEST) -q --hypothesis-profile chance -m "hypothesis and not nightly"
	$(PYTEST) -m nightly $(ARGS)

# make bench ARGS="get ws" measures these scenes alone, and leaves docs/ as it is.
bench: $(VENV)/.bench
	$(VENV)/bench/bin/python -m tests.bench $(ARGS)

bench-quick: $(VENV)/.dev
	$(BIN)/python -m tests.bench --quick

soak: $(VENV)/.dev
	$(PYTEST) -m "nightly" -s tests/soak $(ARGS)

clean:
	rm -rf build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache/demo .cache/logs
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean
	rm -rf $(VENV) .cache
