# Every target sets up what it needs.  `make demo` and `make test` are all a newcomer has to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all check format lock bench quality ablations compare tables table1 table2 table3 table4 toy parity smoke-full plug clean

help:  ## list the targets
	@grep -hE '^[a-z0-9 -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv from the lock

$(STAMP): requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --clear --python ">=3.11,<3.14" $(VENV) && installer=uv; \
	else \
	  $(PYTHON) -m venv --clear $(VENV) && $(BIN)/python -m pip install --quiet uv && installer=$(BIN)/uv; \
	fi && \
	$$installer pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock && \
	$$installer pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup  ## none, best_of_n and dymo on held-out prompts; writes outputs/shapes_demo/gallery.html
	@$(BIN)/python -m align -m experiment=shapes_demo method=none,best_of_n,dymo
	@echo "open outputs/shapes_demo/gallery.html"

TESTS = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder

test: setup  ## the tests that a change is judged by: some eight minutes on two cores (WORKERS=4 for more; each takes 1.5 GB)
	$(TESTS) -m "not slow"

test-slow: setup  ## all others: whole recorded runs, kills, launchers, training, every layout of the hub
	$(TESTS) -m slow

test-all: setup  ## all tests, each once, what they share made once
	$(TESTS)

check: setup  ## linter, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## resolve the dependencies anew
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --no-emit-index-url --no-header --upgrade --output-file requirements.lock

bench: setup  ## speed of the shapes world, and the loop's overhead over bare model calls
	$(BIN)/python scripts/bench.py shapes

quality: setup  ## measure the shipped weights as the model cards state them (ARGS="--backbone shapes_flow" for the flow)
	$(BIN)/python scripts/shapes_quality.py $(ARGS)

smoke-full: setup  ## a guided evaluation at full size, random weights: BACKBONE=sd15 (11 GB) or sdxl (over 14 GB); ARGS='--device cuda --both'
	$(BIN)/python scripts/smoke_full.py $(or $(BACKBONE),sd15) $(ARGS)

plug: setup  ## kill a run of some ten minutes 20 times and compare it with an undisturbed one (docs/reliability.md)
	$(BIN)/python scripts/pull_the_plug.py --folder outputs/plug --kills 20 -- method=dymo prompts=shapes_pair samples=3 $(ARGS)

ABLATE := $(BIN)/python -m align experiment=shapes_ablation method=dymo

ablations: setup  ## DyMO without its parts and with more rounds, 100 held-out prompts; about 40 minutes on one core
	$(BIN)/python -m align experiment=shapes_ablation method=none
	$(ABLATE)
	$(ABLATE) method.name=no_semantic method.objective.semantic=0
	$(ABLATE) method.name=no_preference method.objective.preference=0
	$(ABLATE) method.name=no_weights method.objective.dynamic=false
	$(ABLATE) method.name=dynamic_rounds method.recurrence.rule=gradient_norm method.recurrence.cap=9
	$(ABLATE) method.name=five_evaluations method.recurrence.rule=fixed method.recurrence.rounds=4 method.recurrence.cap=9
	$(ABLATE) method.name=ten_evaluations method.recurrence.rule=fixed method.recurrence.rounds=9 method.recurrence.cap=9
	$(BIN)/python -m align report outputs/shapes_ablation

OF ?= unet
compare: setup  ## methods at equal compute, 100 held-out prompts, into docs/compare.md; two hours on one core (JOBS=2 for two, OF=flow for another part)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/compare.py run --of $(OF) --jobs $(or $(JOBS),1) --with run.threads=1
	OMP_NUM_THREADS=1 $(BIN)/python scripts/compare.py diversity --of $(OF) --jobs $(or $(JOBS),1) --with run.threads=1
	$(BIN)/python scripts/compare.py page --of $(OF)

SCALE ?= shapes
TABLE = $(BIN)/python -m align table --scale $(SCALE) --jobs $(or $(JOBS),$(if $(filter shapes,$(SCALE)),2,1)) $(if $(SIZE),prompts.limit=$(SIZE)) $(ARGS)

tables: setup  ## DyMO's four tables, paper and ours: SCALE=shapes (40 minutes on two cores) or full, SIZE=prompts, JOBS=runs at a time
	$(TABLE) dymo_table1 dymo_table2 dymo_table3 dymo_table4

table1 table2 table3 table4: setup  ## one of them; ARGS='--only dymo run.batch_size=4' and the like
	$(TABLE) dymo_$@

toy: setup  ## docs/toy.md: every method where everything is known exactly; 15 to 20 minutes on one core, ARGS=--afresh measures anew
	OMP_NUM_THREADS=1 $(BIN)/python scripts/toy.py $(ARGS)

parity: setup  ## HPSv2 and ImageReward against the published packages, in an environment of their own
	$(BIN)/python scripts/parity.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) .parity-venv .mypy_cache .ruff_cache .pytest_cache
