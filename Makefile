# One command per task; `make help` lists them. Each sets up what it needs, once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
ARGS ?=
JOBS ?= auto
TIERS ?= lint unit cluster-test
PYTEST := $(BIN)/pytest -n $(JOBS) --dist worksteal
REDIS ?= redis-server
# A start without the bytecode of our own modules compiles them anew: 0.2 s each of several hundred programs in tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint unit cluster-test redis-compat e2e tools-test soak stalls envoy soak-pools bench crds chart clean venv programs lock worker-programs images

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv programs ## Watch services stop and start on six nodes (ARGS=--once: run the script and end)
	@PYTHONPATH=tools $(BIN)/python -m demo $(ARGS)

test: venv $(if $(filter e2e,$(TIERS)),worker-programs images,programs) ## Everything: lint, unit and flow tests, cluster tests (JOBS=N workers; default: follows the cores)
	@$(BIN)/python tools/tiers.py $(TIERS)

lint: venv ## Style, types, layers, generated files
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=tools $(BIN)/lint-imports
	@export PYTHONPATH=tools; $(BIN)/python -m crdgen --check crds && $(BIN)/python -m crdgen --check charts/hotpool/crds
	@PYTHONPATH=tools $(BIN)/python -m field_reference --check docs/reference/pools.md
	@PYTHONPATH=tools $(BIN)/python -m chart --check
	@$(BIN)/python tools/vocabulary.py

unit: venv ## Tests without a cluster: pure core, and real processes in flow
	@$(PYTEST) tests/unit tests/integration $(ARGS)

cluster-test: venv programs ## Tests on a real API server and a real Redis (ARGS="-n0 -k WORD": one test, in a debugger)
	@$(PYTEST) tests/cluster $(ARGS)

redis-compat: venv ## Tests of Redis on another server of this machine (REDIS=redis-server, or a path; no cluster needed)
	@command -v $(REDIS) >/dev/null || { echo "$(REDIS) is missing: install redis-server (Debian 12 and later) or valkey-server (Debian 12 backports, Debian 13), or say which: make $@ REDIS=/path/to/server" >&2; exit 1; }
	@HOTPOOL_TEST_REDIS_SERVER=$$(command -v $(REDIS)) $(PYTEST) -p no:shared-cluster-cluster \
	  tests/cluster/redis $(ARGS)

e2e: venv worker-programs images ## The chart on a local cluster with real pods (Linux and root; names the packages that are missing)
	@$(BIN)/pytest tests/e2e $(ARGS)

tools-test: venv ## Tests of tools/localkube, needed after a change of it (worker nodes: Linux and root)
	@PYTHONPATH=tools $(BIN)/python -m localkube.tests.run $(ARGS)

soak: soak-pools programs ## Random courses of thousands of steps against the models of operator and agent (two hours)
	@$(BIN)/pytest tests/soak/cluster $(ARGS)

stalls: venv programs ## Stop the API server of a local cluster for three seconds, ten times
	@$(BIN)/pytest tests/soak/cluster/test_stalled_api_server.py $(ARGS)

envoy: venv worker-programs images ## Requests through a real Envoy to pods of a pool that start, stop and crash (root)
	@$(BIN)/pytest tests/soak/e2e $(ARGS)

soak-pools: venv ## Thousands of courses against the oracle of membership, without a cluster (HOTPOOL_SOAK_CASES=2000)
	@$(BIN)/pytest tests/soak/pools $(ARGS)

bench: venv programs ## Measure (ARGS="--json FILE" also writes the figures)
	@PYTHONPATH=.:tools $(BIN)/python -m benchmarks $(ARGS)

crds: venv ## Generate crds/ and the tables of docs/reference/pools.md from the models in operator/hotpool/api
	@export PYTHONPATH=tools; $(BIN)/python -m crdgen crds && $(BIN)/python -m crdgen charts/hotpool/crds
	@PYTHONPATH=tools $(BIN)/python -m field_reference docs/reference/pools.md

chart: venv ## Generate the chart's table of values from values.schema.json
	@PYTHONPATH=tools $(BIN)/python -m chart

clean: ## Remove the virtual environment and caches of tools (built cluster programs stay in your cache folder)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .pytest-kind

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hotpool needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: install it with your system's packages" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

worker-programs: programs ## Build those of a worker node too (root is needed to run them)
	@tools/kind build node-image --worker >/dev/null

programs: venv ## Build the programs of the local cluster and the check of alerts once (about 10 minutes; cached for the user)
	@if $(BIN)/python -c 'import sys; sys.path.insert(0, "tools"); from localfleet.kind import *; sys.exit(kind_program() != REPOSITORY / "tools/kind")'; \
	  then tools/kind build node-image >/dev/null; fi
	@PYTHONPATH=tools $(BIN)/python -m alertcheck >/dev/null

images: venv ## Build the image of operator and agent, and a Redis for tests, as archives (root; cached for the user)
	@PYTHONPATH=tools $(BIN)/python -m localimages

lock: venv ## Renew requirements.lock from pyproject.toml, what builds the image, and the Envoy of tests
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --universal --no-header --quiet --output-file requirements.lock
	@$(BIN)/uv pip compile packaging/build.in --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --universal --no-header --quiet --output-file packaging/build.lock
	@$(BIN)/uv pip compile tools/localimages/envoy.in --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --universal --no-header --quiet --output-file tools/localimages/envoy.lock
