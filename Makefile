# What a contributor runs. scripts/prepare.py installs what a target needs, once.
PYTHON ?= python3
PORT ?= 9836
ARGS ?=
ROUNDS ?= 20
POLLS ?= 100000
BIN := .venv/bin
PREPARE := $(PYTHON) scripts/prepare.py

.PHONY: help demo run setup test chaos soak lint bench docs packages constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## the daemon on a simulated node (PORT=9836)
	@$(PREPARE) run
	@echo "http://localhost:$(PORT) is the simulated node's page; Ctrl-C ends it"
	@exec $(BIN)/gpu-node-exporter --simulate --web.listen-address=:$(PORT) \
		--storage.path=.cache/demo $(ARGS)

run: ## the daemon on this machine's GPUs (ARGS="--config.file=...")
	@$(PREPARE) run
	@exec $(BIN)/gpu-node-exporter $(ARGS)

setup: ## install what the tests need, and run none
	@$(PREPARE) dev packages compiler programs systemd browser

# As many at once as there are cores, up to four: more would only wait for each other.
test: setup ## every test, after installing what they need (ARGS="-k web")
	@$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadgroup --no-loadscope-reorder $(ARGS)

chaos: setup ## faults and hostile clients for minutes (ROUNDS=20)
	@CHAOS_ROUNDS=$(ROUNDS) $(BIN)/pytest -m chaos --timeout=3600 $(ARGS)

soak: setup ## nothing grows over a day of polls (POLLS=100000)
	@SOAK_POLLS=$(POLLS) $(BIN)/pytest tests/test_soak.py --timeout=36000 $(ARGS)

lint: ## ruff, mypy --strict, import contracts
	@$(PREPARE) dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version=3.11 grafana
	@$(BIN)/lint-imports --no-logo

bench: ## measure the budgets beside the peers
	@$(PREPARE) bench compiler programs
	@$(BIN)/python bench/run.py $(ARGS)

docs: ## write anew what is generated: metrics, findings, PrometheusRule, alerts, peers, dashboards
	@$(PREPARE) dev
	@$(BIN)/gpu-node-exporter metrics > docs/metrics.md.new
	@mv docs/metrics.md.new docs/metrics.md
	@sed -i '/^## Findings$$/,$$d' docs/doctor.md
	@$(BIN)/gpu-node-exporter doctor --findings >> docs/doctor.md
	@$(BIN)/python scripts/manifests.py
	@$(BIN)/python scripts/alerts_reference.py
	@$(BIN)/python scripts/peers_reference.py
	@$(BIN)/python grafana/build.py

packages: ## build sdist, wheel, .deb and .rpm into dist/
	@$(PREPARE) packages
	@$(BIN)/python scripts/packages.py $(ARGS)

# One resolution for every Python from 3.10 on: markers tell where a version differs.
constraints: ## pin the newest versions that pyproject.toml allows
	@$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv
	@echo setuptools | .cache/uv/bin/uv pip compile --quiet --upgrade --universal --no-annotate \
		--python-version 3.10 --extra dev --extra bench --extra packages \
		--custom-compile-command 'make constraints' \
		--output-file constraints.txt pyproject.toml -

clean: ## remove all that these targets made
	@rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
