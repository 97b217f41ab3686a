# The two commands: make run, make test. The others: make help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
PORT ?= 5000
KILLS ?= 100
CONFIG ?= config.yaml
BIN := .venv/bin
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
GPUS = $(shell ls /dev/nvidia[0-9]* 2>/dev/null | wc -l)
SNAKEMAKE = $(BIN)/snakemake --profile profiles/local --configfile $(CONFIG)

.PHONY: help install run data test slurm-deps torture quality lint fmt ui screenshots rulegraph

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing into .venv; the first time takes two minutes or so'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: .venv/installed  ## create .venv and install the pinned dependencies

run: install  ## run the experiment of config.yaml (CONFIG=file for another) and say where its results are
	@test -f $(CONFIG) || { echo 'error: there is no file $(CONFIG)'; exit 78; }
	@status=0; \
	PYTHONPATH=profiles/local $(SNAKEMAKE) --logger stages $(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS)) || status=$$?; \
	$(BIN)/python -m pipeline_lib where $(CONFIG) || status=$$?; \
	[ $$status -ne 0 ] || $(BIN)/python -m pipeline_lib check $(CONFIG) || status=$$?; \
	exit $$status

data: install  ## only prepare the datasets of config.yaml (CONFIG=file for another); nothing is trained
	@test -f $(CONFIG) || { echo 'error: there is no file $(CONFIG)'; exit 78; }
	$(SNAKEMAKE) -- datasets

test: install  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

slurm-deps:  ## install SLURM from the packages of Debian or Ubuntu, for the tests on a cluster of this machine
	@PATH=$$PATH:/usr/sbin which slurmctld slurmd munged sbatch >/dev/null || { \
	  $(SUDO) apt-get update -qq; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    munge slurmctld slurmd slurm-client; }

torture: install  ## kill a training KILLS times (default 100), and the slower faults on a cluster of this machine
	$(BIN)/python -m tests.torture $(KILLS) results/reference/faults.parquet
	$(BIN)/python -m pytest -m torture tests/slurm

quality: install  ## lint, formats, types, and the lint of Snakemake
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(SNAKEMAKE) --lint

fmt: install  ## format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

ui: install  ## open MLflow on http://127.0.0.1:5000 (PORT=n for another port)
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --workers 1 \
	  --host 127.0.0.1 --port $(PORT) --backend-store-uri sqlite:///results/mlflow.db --artifacts-destination results/mlartifacts

screenshots: install  ## pictures of the report and of MLflow for the docs (needs chromium)
	$(BIN)/python -m pipeline_lib.tracking.screenshots $(basename $(notdir $(CONFIG:config.yaml=quickstart)))

rulegraph: install  ## the picture of the pipeline in the README (needs graphviz)
	$(SNAKEMAKE) --rulegraph dot 2>/dev/null | sed -n '/^digraph/,$$p' | tred | dot -Tsvg > docs/images/rulegraph.svg
