PYTHON ?= python3

.PHONY: help run test lint types bench mutants pyz

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

run: ## Start a server on port 4242
	$(PYTHON) -m kvdb

test: ## Run the tests; they need nothing but Python
	$(PYTHON) -m unittest

lint: ## Check style and format (needs ruff)
	ruff check .
	ruff format --check .

types: ## Check types (needs mypy)
	mypy

bench: ## Measure beside the peers that are installed
	$(PYTHON) -m tests.bench

mutants: ## Change the code at random places, and see whether the tests notice
	$(PYTHON) -m tests.mutants

pyz: ## Pack everything into one file, dist/kvdb.pyz
	$(PYTHON) deploy/pyz.py dist/kvdb.pyz
