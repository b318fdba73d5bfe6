# make demo | test | lint | golden | docs | site: each makes .venv when it is missing, and can be run again after an interruption.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Makes .venv of a Python that is new enough.
define find_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "genrun needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
endef
.PHONY: demo test test-unit test-e2e test-slurm lint golden docs site format clean

# What develops genrun is not needed for it; where it is installed it serves.
demo: $(if $(wildcard .venv/ready),.venv/ready,.venv/demo-ready)
	$(BIN)/genrun submit jobs/demo.yaml
	$(BIN)/genrun score demo
	$(BIN)/genrun report demo

test: test-unit test-e2e test-slurm

test-unit: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not e2e" -n 2 --dist worksteal

# All tests of a file in one process, which makes what they share once.
test-e2e: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m e2e -n 2 --dist loadfile --ignore tests/slurm

# They mostly wait, so that more of them run than there are cores.
test-slurm: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m e2e -n 6 --dist worksteal tests/slurm

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

golden: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.golden.renew

docs: .venv/ready
	$(BIN)/python docs/tools/reference.py -o docs/cli.md
	$(BIN)/python docs/tools/meshes.py docs/meshes.md
	$(BIN)/genrun models --markdown > docs/models.md.new && mv docs/models.md.new docs/models.md
	$(BIN)/python docs/tools/tables.py
	$(BIN)/python docs/tools/architecture.py
	$(BIN)/python -m tests.gpu.page

site: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html opens in a browser. With search, and while you write: $(BIN)/mkdocs serve"

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/demo-ready: pyproject.toml constraints.txt
	@echo "The demo takes git, make and Python 3.11 or newer, 2 GB of disk for PyTorch and diffusers (more with CUDA), and about"
	@echo "three minutes on two processor cores once they are installed. No GPU, no weights to download. All of it stays in .venv and runs/."
	@$(find_python)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/ready: pyproject.toml constraints.txt
	@$(find_python)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@# axe-core, for tests: the package that carries it asks for Playwright, which nothing here needs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "$$(grep ^axe-playwright-python== constraints.txt)"
	@# FID's network: torch-fidelity asks for torchvision, which it needs for data sets alone.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "$$(grep ^torch_fidelity== constraints.txt)"
	@touch $@

clean:
	rm -rf .venv build dist runs site
