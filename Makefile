# What to do in a checkout. Every target installs what it needs, inside the checkout and only when
# something changed; ARGS is handed on to the tool, for example: make test ARGS="-k naming".
.DEFAULT_GOAL := help
.PHONY: admission-check browser chaos fuzz help setup setup-dev postgres run test cluster e2e-litellm deploy-check lint format types bench lock clean
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
UV := .cache/uv/bin/uv
UV_VERSION := 0.13.9
SEED ?= 1
MINUTES ?= 2

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the sidecar and the pinned opencode (Python 3.11+, Node 20+, npm)
	@tools/setup.sh run

setup-dev: ## The same with the test and lint tools
	@tools/setup.sh dev

run: setup ## Serve: on LITELLM_BASE_URL if it is set, else on the embedded demo gateway
	@exec $(BIN)/opencode-sidecar serve $(ARGS)

postgres: ## Install Debian's PostgreSQL server for the tests, unless there is one (root or sudo)
	@tools/setup.sh postgres

browser: ## Install Debian's Chromium for the tests of the console, unless there is one (root or sudo)
	@tools/setup.sh browser

test: setup-dev postgres browser ## Unit, integration and end-to-end tests with the real opencode (four at a time; WORKERS=0: one)
	@exec tools/test.sh $(ARGS)

cluster: setup-dev postgres ## Three real pods over one PostgreSQL that die under load (CLUSTER_KILLS=200: longer)
	@exec $(BIN)/pytest --timeout 400 tests/cluster $(ARGS)

chaos: setup-dev ## Mixed turns in a storm of faults, then the event logs are checked (SEED=7 MINUTES=20: by hand)
	@exec env SEED=$(SEED) MINUTES=$(MINUTES) $(BIN)/pytest -s -m chaos tests/chaos $(ARGS)

e2e-litellm: setup-dev ## End-to-end tests through a real LiteLLM proxy (installs about 750 MB)
	@tools/setup.sh litellm
	@exec $(BIN)/pytest -m litellm tests/e2e $(ARGS)

deploy-check: ## Image steps, compose file, Kubernetes manifests and wheel (kubectl, and root for namespaces)
	@tools/setup.sh deploy
	@exec $(BIN)/pytest --timeout 600 tests/deploy $(ARGS)

admission-check: ## The manifests in a real Kubernetes API server (by hand: needs Go, and half an hour to compile)
	@tools/setup.sh deploy
	@exec $(BIN)/pytest -m admission tests/deploy/test_admission.py $(ARGS)

lint: setup-dev ## ruff, the formatting, and the layers of .importlinter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --cache-dir .cache/import-linter

format: setup-dev ## Let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup-dev ## mypy --strict
	$(BIN)/mypy --strict -p sidecar -p bench

fuzz: setup-dev ## Requests drawn from the OpenAPI document, right and wrong ones (SEED=7 FUZZ_CASES=500: by hand)
	@exec env SEED=$(SEED) $(BIN)/pytest -m fuzz --timeout 900 tests/fuzz $(ARGS)

bench: setup-dev ## Measure, print the tables and write bench/RESULTS.md (installs LiteLLM, to compare with)
	@tools/setup.sh litellm
	@exec $(BIN)/python -m bench.run $(ARGS)

# uv writes one lock for all platforms and Pythons; pip installs from it. ARGS=--upgrade moves versions.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)
lock: ## Make requirements/*.lock again from pyproject.toml
	@test "$$($(UV) --version 2>/dev/null | cut -d' ' -f2)" = $(UV_VERSION) || \
		{ python3 -m venv --clear .cache/uv && .cache/uv/bin/pip install --quiet uv==$(UV_VERSION); }
	$(COMPILE) --group build pyproject.toml -o requirements/run.lock
	$(COMPILE) --group build --group test --group lint -c requirements/run.lock pyproject.toml -o requirements/dev.lock
	$(COMPILE) --group build --extra otel --extra postgres --extra archive -c requirements/dev.lock pyproject.toml -o requirements/image.lock
	$(COMPILE) --group build --group test --group lint --group deploy -c requirements/dev.lock pyproject.toml -o requirements/deploy.lock
	$(COMPILE) --group litellm -o requirements/litellm.lock

clean: ## Remove everything that was installed or cached here
	rm -rf .venv .venv-litellm .cache .run build dist *.egg-info deploy/opencode/node_modules \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
