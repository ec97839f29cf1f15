# The verbs, the same for people, hooks and CI.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SCHEDULES ?= 20
DATABASE ?= sqlite
EXAMPLES ?= 100

.PHONY: help setup demo serve test coverage check bench faults fuzz gallery lock clean

help: ## Show the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the virtual environment .venv from the pinned versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup ## Run the whole service here and one real job through it
	$(BIN)/python scripts/demo.py

serve: setup ## Run the whole service here until Ctrl-C
	$(BIN)/python -m worker.embedded

# Files in the order of their names, acceptance first: ordered by their number of tests, as xdist would, the longest
# files, of two or three tests each, would come last, and one of two cores would wait for them. A third process has
# work for a core while tests wait for leases, servers and signals.
test: setup ## Run every test that runs on this machine
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

coverage: setup ## The same with branch coverage and its floor; half as long again
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

check: setup ## Lint, types, import arrows, migrations, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	home=$$(mktemp -d) && export SENTINEL_HOME=$$home && $(BIN)/alembic upgrade head && $(BIN)/alembic check && rm -r $$home
	$(BIN)/vulture

bench: setup ## Measure what the README claims
	for name in service hostile queue_order pruning_quality pruning_cost inference_speed healing recovery plasticity controllers memory download jax_masks; do \
	    $(BIN)/python benchmarks/$$name.py || exit 1; \
	done

faults: setup ## Break the service SCHEDULES times on DATABASE, as a seed says, and check every history; kill 20 healings
	$(BIN)/python -m tests.faults --schedules $(SCHEDULES) --database $(DATABASE)
	$(BIN)/python -m tests.faults.healing_kills --kills 20

fuzz: setup ## Ask the service everything that its description allows, and EXAMPLES more requests of each operation
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/integration/api/test_contract.py

gallery: setup ## Draw the pictures of docs/gallery.md and the README from real runs, some minutes
	$(BIN)/python scripts/gallery.py

lock: ## Pin the newest allowed versions into constraints.txt
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	build/lock/bin/python -m pip freeze --exclude sentinel-pruning | sed 's/+cpu//' > constraints.txt

clean: ## Remove the environment and what runs left behind
	rm -rf .venv .sentinel outputs
