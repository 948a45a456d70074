# Start with `make run`, `make test` or `make check`. `make` without a target lists all targets.

.DEFAULT_GOAL := help
.PHONY: help install run engines test slow examples prove chaos mutants check schema client types screenshots docs bench audit lock clean

PYTHON ?= python3
BIN := .venv/bin

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed ## Create .venv and install the locked requirements, whose hashes are checked

.venv/.installed: requirements-dev.txt pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Daybook needs Python 3.11 or newer: name one, as in make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo 'Installing Daybook, its database servers and all other locked requirements into .venv. This can take some minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . -e ./clients/python
	@touch $@
	@echo 'Daybook is installed. `make run` starts everything; `. .venv/bin/activate` puts `daybook` on PATH.'

run: install ## Start Daybook, and each database server that is not configured; ENGINES=sql adds optional stores
	$(BIN)/daybook dev$(if $(ENGINES), --engines $(ENGINES)) $(ARGS)

engines: install ## Get the engines that only Maven has (Cassandra, Kafka, OpenSearch, Elasticsearch); needs Maven and a JDK
	@$(BIN)/python -m dev.engine_jars

# The number of test processes. Each has its own PostgreSQL, MongoDB and Redis. Tests spend most of their time waiting.
TEST_PROCESSES ?= 3

test: install ## Run the tests, with real servers; the proofs run in their short form
	$(BIN)/pytest -q -m "not slow" -n $(TEST_PROCESSES) --dist worksteal

slow: install ## Run the tests that `make test` leaves out: those that take long one by one
	$(BIN)/pytest -q -m slow -n $(TEST_PROCESSES) --dist loadgroup

examples: install .venv/examples/.installed ## Install the libraries that the programs in examples/ use, and run their tests
	$(BIN)/pytest -q tests/examples

.venv/examples/.installed: requirements-examples.txt | install
	$(PYTHON) -m venv .venv/examples
	.venv/examples/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-examples.txt
	@touch $@

prove: install ## Run the proofs with thousands of repetitions for about an hour; ARGS='-k tampering --minutes 60' passes options on
	$(BIN)/pytest -v --prove $(ARGS)

chaos: install ## Strike all parts of Daybook at random for ten minutes; SEED=7 repeats a run, MINUTES=2 shortens it
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

mutants: install ## Change the code in small ways that a test must notice; PART=domain (writer, events, runner, sinks) MINUTES=20 SAMPLE=200
	$(BIN)/python -m tests.mutants $(if $(PART),--part $(PART)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SAMPLE),--sample $(SAMPLE)) $(ARGS)

check: install ## Check format, lint, types and import contracts, and run the tests that need no server
	@$(MAKE) --no-print-directory --jobs --keep-going --output-sync=target $(CHECKS)

# The checks run in parallel. Mypy without its cache takes at least half a minute of processor time, and so do the tests.
CHECKS := check-format check-lint check-types check-imports check-tests
.PHONY: $(CHECKS)

check-format:
	$(BIN)/ruff format --check .

check-lint:
	$(BIN)/ruff check .

check-types:
	$(BIN)/mypy

check-imports:
	$(BIN)/lint-imports

check-tests:
	$(BIN)/pytest -q -m "not services and not long and not slow" -n 2 --dist worksteal

schema: install ## Write the definition of the schema that `daybook verify` expects, after a change of the migrations
	$(BIN)/python -m dev.write_schema

client: install ## Write what clients/python has for each operation, after a change of a route, a body or a problem code
	$(BIN)/python -m dev.write_client

types: install clients/typescript/node_modules/.installed ## Write the TypeScript types in clients/typescript, after a change of a route or a body; needs npm
	$(BIN)/python -m dev.write_types

clients/typescript/node_modules/.installed: clients/typescript/package-lock.json
	npm ci --prefix clients/typescript --no-audit --no-fund
	@touch $@

screenshots: install ## Take the pictures of docs/console.md again, with Chromium
	$(BIN)/python -m dev.console_screenshots

docs: install .venv/docs/.installed ## Build the documentation as a site, and print its address
	$(BIN)/python -m cli.reference_pages
	cd site && ../.venv/docs/bin/zensical build --strict --clean
	@$(BIN)/python -c 'import pathlib; print("Open", pathlib.Path("site/html/index.html").resolve().as_uri())'

.venv/docs/.installed: requirements-docs.txt | install
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	@touch $@

bench: install .venv/bench/.installed ## Run all benchmarks in about ten minutes, and write docs/benchmarks.md
	$(BIN)/python -m bench --write docs

.venv/bench/.installed: requirements-bench.txt | install
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

# The packages of the running system; the others are only in a developer's .venv.
LICENSED := requirements.txt
HASHED := requirements requirements-examples requirements-parquet requirements-publish requirements-search requirements-sql \
	requirements-statements requirements-telemetry requirements-timeline requirements-dev requirements-bench requirements-audit requirements-docs

audit: install .venv/audit/.installed ## Look for known weaknesses and unfit licences, and write sbom.cdx.json (CycloneDX)
	.venv/audit/bin/cyclonedx-py requirements requirements.txt --output-reproducible --of JSON -o sbom.cdx.json
	.venv/audit/bin/pip-licenses --python $(BIN)/python --from mixed --summary --partial-match --fail-on 'GPL;General Public' \
		--packages $$(sed -n 's/^\([A-Za-z0-9_.-]*\)==.*/\1/p' $(LICENSED))
	.venv/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off $(HASHED:%=--requirement %.txt)

.venv/audit/.installed: requirements-audit.txt | install
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.txt
	@touch $@

lock: install ## Update the locked requirements, with hashes and without the URL of an index
	@for list in $(HASHED); do \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $$list.in -o $$list.txt; \
	done

clean: ## Remove everything that was built; keep .daybook, which holds the data of `make run`
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
