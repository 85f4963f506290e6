# make demo        the example project with a simulated Stripe; PORT=8001 make demo takes another port
# make demo-check  the same story without a person
# make test        all tests, on SQLite and PostgreSQL; ARGS="-k webhook" is passed on to pytest
# make lint        format, lint, types, imports
#
# Needs Python 3.11 or newer: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# What a shell has set for another project is not for this one.
unexport DJANGO_SETTINGS_MODULE PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: demo demo-check test lint
.NOTPARALLEL:

demo: $(READY)
	@$(BIN)/python manage.py demo

demo-check: $(READY)
	@echo "== The demo's story, over HTTP =="
	@$(BIN)/python -m example_project.demo_check

test: $(READY)
	@for setup in \
		"TEST_DATABASE=sqlite" \
		"TEST_DATABASE=postgresql" \
		"TEST_DATABASE=postgresql TEST_SUBSCRIBER=organisation" \
		"TEST_DATABASE=sqlite TEST_USE_TZ=0"; \
	do \
		echo "== Tests, $$setup =="; \
		env $$setup $(BIN)/pytest -q -n auto $(ARGS) || { echo "make test: FAILED with $$setup" >&2; exit 1; }; \
	done

lint: $(READY)
	@echo "== ruff format =="; $(BIN)/ruff format --check .
	@echo "== ruff check =="; $(BIN)/ruff check .
	@echo "== mypy =="; $(BIN)/mypy
	@echo "== lint-imports =="; $(BIN)/lint-imports

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make demo PYTHON=python3.12" >&2; \
		exit 1; \
	}
	@echo "Making the environment in .venv; the first time takes a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
