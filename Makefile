# Nothing but python3, make, git and a package registry is assumed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export NO_MKDOCS_2_WARNING := 1
# without byte code each of a thousand processes would compile this package again
export PYTHONDONTWRITEBYTECODE :=

INSTALLED_RUN := $(VENV)/.installed-run
INSTALLED_DEV := $(VENV)/.installed-dev
# -c pins every version; torch is named with its pin, so that pip does not look for another build of it
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test soak check bench bench-full bench-peers docs clean

run: $(INSTALLED_RUN)  ## rebuild the model, store it, and show what there is
	dvc repro
	dvc push
	@printf '\n== Metrics ==\n'
	@dvc metrics show
	@printf '\n== Registry ==\n'
	@holdfast registry show
	@printf '\n== Duplicates ==\n'
	@holdfast dedup report
	@printf '\n== What could be collected ==\n'
	@holdfast gc plan

test: $(INSTALLED_DEV)  ## the whole suite, with reduced counts
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not soak"

soak: $(INSTALLED_DEV)  ## the full counts; goes on where it was interrupted
	sh tests/soak.sh

check: $(INSTALLED_DEV)  ## lint, types, layers
	ruff check
	ruff format --check
	mypy
	lint-imports

bench: $(INSTALLED_DEV)  ## measure at reduced sizes, in minutes; docs/performance.md says what came out
	python benchmarks/run.py --reduced; ended=$$?; python benchmarks/report.py && exit $$ended

bench-full: $(INSTALLED_DEV)  ## at the goals' own sizes, in hours; goes on where it was interrupted
	python benchmarks/run.py; ended=$$?; python benchmarks/report.py && exit $$ended

bench-peers: $(INSTALLED_DEV)  ## peers that come as packages; restic, borgbackup, git-lfs and rclone come from the system
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps zipnn==0.5.4

docs: $(INSTALLED_DEV)  ## write what is generated again, and build the site into site/
	python docs/generate.py
	python docs/outputs.py
	mkdocs build --strict

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED_RUN): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e ".[train,report]"
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt $(INSTALLED_RUN)
	$(INSTALL) -e ".[train,report,dev,docs,fast,sign,cluster]"
	@touch $@
