# make demo   build .venv, install, run the whole workflow on a generated clip
# make test   build .venv, install, lint, check types, run the tests (what .ci/run calls)
# make check  the same three checks in .venv as it is; with BIN= in the current environment
# make demo-model   retrain the demo model (about two and a half hours on 2 cores, bf16) and install it in the package
# make clean  remove everything that was built
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN ?= $(VENV)/bin/
STAMP := $(VENV)/.installed
EXTRAS := cpu,openvino,export,int8,bench,dev
LINTED := stmask_deploy export runtime tests benchmarks $(wildcard examples)
LINKS := build/types/stmask_deploy

TRAIN = $(BIN)torchrun --nproc-per-node 2 -m stmask_deploy.training --val synth/val/instances.json --threads 1 \
        --workers 0 --overwrite
PRETRAINED := stmask_deploy/pretrained
DEMO_RUNS := demo-small demo demo-finish

.PHONY: demo demo-model test check lint types unit clean

demo: $(STAMP)
	$(BIN)python -m stmask_deploy.demo demo

# Two single-threaded processes use two cores better than one with two threads; together they process a recipe's batch.
demo-model: $(STAMP)
	$(BIN)stmask-synth synth --overwrite
	$(BIN)stmask-synth synth/more --split train --clips 1440 --overwrite
	$(TRAIN) synth/train/instances.json -o runs/demo-small --recipe demo-small --pairs 8
	$(TRAIN) synth/train/instances.json -o runs/demo --recipe demo --pairs 4 --from runs/demo-small/model.pth \
	  --input-size 192x320
	$(TRAIN) synth/more/train/instances.json -o runs/demo-finish --recipe demo-finish --pairs 4 \
	  --from runs/demo/model.pth
	cp runs/demo-finish/model.pth $(PRETRAINED)/shapes.pth
	cat $(DEMO_RUNS:%=runs/%/log.jsonl) > benchmarks/results/demo-training.jsonl
	$(BIN)stmask-export $(PRETRAINED)/shapes.pth -o $(PRETRAINED)/shapes_stmask --openvino --overwrite

test: $(STAMP)
	$(MAKE) --no-print-directory check

check: lint types unit

lint:
	$(BIN)ruff check $(LINTED)

# mypy does not support package_dir, so links show it the tree as installed.
types:
	mkdir -p $(LINKS)
	ln -sfn $(CURDIR)/stmask_deploy/* $(CURDIR)/export $(CURDIR)/runtime $(LINKS)
	$(BIN)mypy

# One folder of tests at a time per process (tests/conftest.py), so that the fixtures a folder shares are made once.
unit:
	$(BIN)python -m pytest --numprocesses auto --maxprocesses 4

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist demo synth *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
