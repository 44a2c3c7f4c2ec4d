# `make` lists what there is. Everything runs in the environment that `make setup` creates, outside this
# folder: ${DA3_VENV}, by default ~/.venvs/da3_ros. PYTHON is only used to create it.

DA3_VENV ?= $(HOME)/.venvs/da3_ros
PYTHON ?= python3
ARGS ?=

BIN := $(DA3_VENV)/bin

export DA3_VENV
# Several processes share few cores: waiting OpenMP threads must sleep, not spin.
export OMP_WAIT_POLICY := PASSIVE
# ROS 2 talks to this machine only.
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types format train bench clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' \
	  | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup:  ## create or update the environment: Python packages, ROS 2, messages (quick when up to date)
	@$(PYTHON) tools/bootstrap.py

demo: setup  ## synthetic world -> bag -> live node -> table of results and a report
	@$(BIN)/da3 demo $(ARGS)

test: setup  ## all tests, in two processes (ARGS="-k name" for some, in one)
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2)

lint: setup  ## ruff: rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	@$(BIN)/mypy

check:  ## lint, types and tests: what CI runs
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test

format: setup  ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

train: setup  ## train da3-tiny on synthetic worlds, or go on (ARGS="--minutes 60")
	@$(BIN)/da3 train $(ARGS)

bench: setup  ## speed of the parts, as a table
	@$(BIN)/da3 bench $(ARGS)

clean:  ## remove caches and build products of this folder (not the environment)
	@rm -rf build install log out dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
