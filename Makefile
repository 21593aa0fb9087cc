# Two commands set everything up: `make demo` and `make test`. VENV=path reuses an environment made from the same lock.
# PIP_ARGS goes to pip: another index, a proxy, a cache, or the index of a build of torch without CUDA.
VENV ?= .venv
PYTHON ?= python3.11
BIN := $(abspath $(VENV))/bin
STAMP := $(abspath $(VENV))/.corgi-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
export NO_ALBUMENTATIONS_UPDATE := 1
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE ?= 1
export PATH := $(BIN):$(PATH)
# Every stage, worker and command is a process that would compile corgi again.
unexport PYTHONDONTWRITEBYTECODE

PIP = $(BIN)/python -m pip install --disable-pip-version-check -c requirements.lock $(PIP_ARGS)

.PHONY: few-captions few-captions-quick few-captions-tables compare-styles compare-styles-quick demo play docs test-web styles smoke compare compare-quick test test-fast test-smoke test-demo check gpu-check promises calibrate clean venv

venv: $(STAMP)

# An interrupted install goes on: pip keeps what it has fetched whole, and nothing is marked as done before the end.
$(STAMP):
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 8 GB, most of it CUDA libraries, a few minutes; log: $(VENV)/install.log"
	@{ $(PIP) "setuptools>=77" && $(PIP) --progress-bar off -e ".[demo,serve,finetune,dev]" \
	   && $(BIN)/python -m pip check; } > $(VENV)/install.log 2>&1 || { tail -n 20 $(VENV)/install.log >&2; exit 1; }
	@rm -f $(abspath $(VENV))/.corgi-*
	@touch $@

demo: $(STAMP)
	@$(BIN)/python pipelines/demo.py

# The playground and the HTTP API of the demo's run, or of RUN, on loopback.
RUN ?= runs/openmoji
PORT ?= 8000
play: $(STAMP)
	@$(BIN)/corgi serve $(RUN) --port $(PORT)

# Six emoji sets from the npm registry, the whole flow on them; 43 minutes on two cores.
styles: $(STAMP)
	@$(BIN)/python pipelines/demo.py --data iconify --recipe pipelines/recipes/styles.yaml --work runs/styles-site --port 8057

smoke: $(STAMP)
	@rm -rf runs/smoke
	@$(BIN)/python pipelines/demo.py --pictures 300 --port 8047 --work runs/smoke/site --recipe pipelines/recipes/smoke.yaml

# Shifted diffusion against its baselines, on the demo's tables; `compare-quick` is the ten-minute part of it.
compare: $(STAMP)
	$(BIN)/python pipelines/demo.py --pipeline compare --recipe pipelines/recipes/compare.yaml

compare-quick: $(STAMP)
	$(BIN)/python pipelines/demo.py --pipeline compare --recipe pipelines/recipes/compare-quick.yaml

# The two experiments that docs/results.md announces, arm by arm: what left a file under docs/results/ is not run again.
FEW := $(BIN)/python pipelines/demo.py --data iconify --recipe pipelines/recipes/few-captions.yaml --work runs/styles-site --port 8057
few-captions-tables: $(STAMP)
	$(FEW) --until pack
	$(FEW) --only autoencoder

few-captions: few-captions-tables
	$(BIN)/python -m benchmarks.few_captions

few-captions-quick: few-captions-tables
	$(BIN)/python -m benchmarks.few_captions --quick

compare-styles: $(STAMP)
	$(BIN)/python -m benchmarks.compare_styles

compare-styles-quick: $(STAMP)
	$(BIN)/python -m benchmarks.compare_styles --quick

# Three processes: a test waits for most of its time. A file's tests stay together; those that start Ray are in one process.
TOGETHER := --dist loadfile --no-loadscope-reorder
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 $(TOGETHER)

# Laws and units: no Ray, no whole stage, nothing over two CPU-seconds.
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 $(TOGETHER) -m "not ray and not flow and not slow"

# What only a whole flow shows, asserted on the run that `make smoke` left; then the comparison over its tables.
test-smoke: $(STAMP)
	@test -e runs/smoke/report.html || { echo "runs/smoke is not there; nothing was run; run make smoke first" >&2; exit 3; }
	$(BIN)/python -m pytest tests/flows -o norecursedirs=.git

# The prompts of README, painted by the run that `make demo` left and judged by the network it is evaluated with.
test-demo: $(STAMP)
	@test -e runs/openmoji/report.html || { echo "runs/openmoji is not there; nothing was run; run make demo first" >&2; exit 3; }
	$(BIN)/python -m pytest tests/trained -o norecursedirs=.git

# A browser, clients and the wheel, over the run that `make smoke` left; needs chromium (apt).
test-web: $(STAMP)
	@test -e runs/smoke/report.html || { echo "runs/smoke is not there; nothing was run; run make smoke first" >&2; exit 3; }
	@$(BIN)/python -c "import axe_playwright_python, openai, playwright, schemathesis" 2> /dev/null \
	  || $(PIP) -q -e ".[web]" > $(VENV)/install-web.log 2>&1 || { tail -n 20 $(VENV)/install-web.log >&2; exit 1; }
	$(BIN)/python -m pytest tests/web -o norecursedirs=.git

# The docs as a site in build/site; the generator has an environment of its own, since its pins are not the lock's.
docs: docs/.venv/.ready
	@$(PYTHON) docs/site.py
	@docs/.venv/bin/zensical build --clean --strict

docs/.venv/.ready: docs/requirements.txt
	@docs/.venv/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv docs/.venv
	@docs/.venv/bin/python -m pip install --disable-pip-version-check -q -r docs/requirements.txt $(PIP_ARGS)
	@touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

chaos-%: $(STAMP)
	$(BIN)/python -m pytest tests/chaos/$* -o norecursedirs=.git

# Takes the figures that tests recorded since into docs/promises.json and docs/promises.md.
promises: $(STAMP)
	$(BIN)/python -m tests.support.promises

# What a GPU makes of the trainings; needs no network, Ray or W&B (docs/gpu.md). PARTS="prior-demo resume" chooses.
gpu-check: $(STAMP)
	$(BIN)/python -m benchmarks.gpu_check $(if $(PARTS),--parts $(PARTS))

bench-%: $(STAMP)
	$(BIN)/python -m benchmarks.$*

bench-prior: $(STAMP)
	bash benchmarks/peer_dalle2.sh
	$(BIN)/python -m benchmarks.prior --peer

bench-statistics: $(STAMP)
	$(BIN)/python -m benchmarks.shift_statistics

# Rates of --plan measured on this machine, for cluster.rates; ROOT is the folder or bucket whose bandwidth counts.
calibrate: $(STAMP)
	$(BIN)/python -m benchmarks.calibrate $(if $(ROOT),--root $(ROOT))

clean:
	rm -rf .venv docs/.venv runs .pytest_cache .ruff_cache .import_linter_cache build *.egg-info
