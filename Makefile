# Everything a person does here starts with one of these lines; `make` alone lists them.
# Every target that needs the environment builds it first (scripts/setup.sh; seconds when it is there).
.DEFAULT_GOAL := help
.PHONY: help demo up test check bench lock clean
SHELL := /bin/bash
PY := .venv/bin/python
BIN := .venv/bin

help: ## list these targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 14

demo: ## the main story, live: saturate a real detector, watch it be throttled, restarted and restored
	@scripts/setup.sh daemons
	@$(BIN)/remediator demo

up: ## start detector, Prometheus, Alertmanager and controller without the story; Ctrl-C ends them
	@scripts/setup.sh daemons
	@$(PY) -m remediator.demo.up

test: ## every test, those against real daemons and the real model included (about 25 minutes on 2 cores)
	@scripts/setup.sh daemons screen
	@$(PY) -m pytest -n 2 --dist loadgroup -m "not alone"
	@$(PY) -m pytest -m alone

check: ## format, lint, types, import rules and the quick tests (about a minute and a half on 4 cores)
	@scripts/setup.sh
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PY) -m pytest -q -m "not real and not slow" -n auto

bench: ## what durability costs, as a ratio against the disk; figures in benchmarks/results/
	@scripts/setup.sh
	@$(PY) benchmarks/run.py

lock: ## write requirements/lock.txt anew from what .venv holds
	@scripts/lock.sh

clean: ## remove the environment and everything built or cached here
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
