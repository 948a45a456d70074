# Everything that a newcomer needs: `make run`, `make test`, `make check`. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help install run test check bench lock clean

PYTHON ?= python3
BIN := .venv/bin

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed ## Make .venv from the hashed lock file

.venv/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'daybook needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: install ## Start what is not configured, migrate, seed and serve
	$(BIN)/daybook dev

test: install ## Run all tests against real servers of their own
	$(BIN)/pytest -q

check: install ## Format, lint, types, import contracts, and the tests that need no server
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not services"

bench: install .venv/bench/.installed ## Measure everything beside its yardsticks, ten minutes; docs/benchmarks.md
	$(BIN)/python -m bench --write docs

.venv/bench/.installed: requirements-bench.txt | install
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

lock: install ## Compile the requirements anew, with hashes and without naming an index
	@for list in requirements requirements-dev requirements-bench; do \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $$list.in -o $$list.txt; \
	done

clean: ## Remove what was built; .daybook, the data of `make run`, stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
