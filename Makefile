# make demo        the example project with a simulated Stripe; PORT=8001 make demo takes other ports
# make demo-check  the same story without a person
#                  make demo DJSTRIPE=1, make demo-check DJSTRIPE=1: beside dj-stripe
# make browser     the same in a Chromium, clicked through
# make screenshots pictures of the pages in Django admin, in .demo/screenshots; DOCS=1 makes those in docs/images anew
# make test        all tests, on SQLite, PostgreSQL and the newest Django; ARGS="-k webhook" is passed on to pytest
# make djstripe-test  those beside dj-stripe alone
# make soak        a whole site killed, program by program, while much happens; then a long search. Ten minutes
# make bench       what a gate costs beside other ways to ask; BENCH="--quick" takes a minute
#                  bench-intake, bench-batches, bench-fetch, bench-bytes: what news of Stripe cost
#                  bench-admin: pages of the admin on five million entitlements, beside stock ones
# make lint        format, lint, types, imports
#
# Needs Python 3.11 or newer: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
NEWEST := .venv-newest
BENCHED := .venv-bench
# dj-stripe wants an older stripe, so what runs beside it has an environment of its own.
BESIDE := .venv-djstripe
EXAMPLE := $(if $(filter 1,$(strip $(DJSTRIPE))),$(BESIDE),.venv)
BESIDE_WHAT := , beside dj-stripe
PYTEST := pytest -q -n auto --dist worksteal

# With ARGS, a set-up may have nothing to run, and then pytest exits with 5. Of all set-ups one has.
NONE_OF_ARGS_HERE := [ $$? -eq $(if $(strip $(ARGS)),5,0) ]
COLLECT := pytest -q --co -n 0 $(ARGS) >/dev/null

# What a shell has set for another project is not for this one.
unexport DJANGO_SETTINGS_MODULE PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

# Only a Python that was asked for, or is about to make the environment, has to be new enough.
define CHECK_PYTHON
	@test -n "$(strip $(PYTHON))" || { echo "PYTHON is empty. Name one: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make demo PYTHON=python3.12" >&2; \
		exit 1; \
	}
endef

# NEWEST_PYTHON if it is given, else the first that works, first of all one that pyproject.toml names.
IS_3_12 := import ensurepip, sys; sys.exit(sys.version_info < (3, 12))
FIND_NEWEST = $$(versions=$${PYENV_ROOT:-$$HOME/.pyenv}/versions; \
	for python in $${NEWEST_PYTHON:-python3.13 python3.12 $$versions/3.13*/bin/python $$versions/3.12*/bin/python python3.14}; \
	do $$python -c "$(IS_3_12)" 2>/dev/null && echo $$python && break; done)

.PHONY: help demo demo-check browser browser-if-found screenshots example-test test compiled \
	sqlite-test without-time-zones-test newest-environment newest-test djstripe-environment djstripe-test soak \
	bench bench-intake bench-batches bench-fetch bench-bytes bench-admin lint check-python
.NOTPARALLEL:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(EXAMPLE)/ready
	@$(EXAMPLE)/bin/python manage.py demo

demo-check: $(EXAMPLE)/ready
	@echo "== The demo's story, over HTTP$(if $(filter $(BESIDE),$(EXAMPLE)),$(BESIDE_WHAT)) =="
	@$(EXAMPLE)/bin/python -m example_project.demo_check

browser: $(READY)
	@$(BIN)/python -m example_project.browser.chromium >/dev/null
	@echo "== The demo, in a browser =="
	@$(BIN)/pytest -q example_project/browser

screenshots: $(READY)
	@$(BIN)/python -m example_project.browser.screenshots $(if $(DOCS),--docs)

browser-if-found: $(READY)
	@if $(BIN)/python -m example_project.browser.chromium >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory browser; \
	else echo "== NOT tested in a browser: there is no Chromium. make browser says how to get one. =="; fi

example-test: $(READY)
	@echo "== The example's own tests =="
	@env -u STRIPE_API_KEY -u STRIPE_WEBHOOK_SECRET -u STRIPE_API_BASE -u DJSTRIPE \
		$(BIN)/pytest -q --ds=example_project.settings example_project/shop

test: $(READY)
	@$(if $(strip $(ARGS)),$(BIN)/$(COLLECT) || { [ -e $(BESIDE)/ready ] && TEST_DJSTRIPE=1 $(BESIDE)/bin/$(COLLECT); } || \
		{ echo 'make test: no test is named by ARGS="$(ARGS)"' >&2; exit 1; },$(MAKE) --no-print-directory example-test browser-if-found)
	@$(MAKE) --no-print-directory sqlite-test without-time-zones-test newest-test djstripe-test
	@echo "make test: all passed"

# TEST_WITHOUT: groups of tests (tests/conftest.py) that would say the same there as in another set-up.
ON_POSTGRESQL := TEST_DATABASE=postgresql TEST_SUBSCRIBER=organisation TEST_WITHOUT=once,refusals,files,calls,forced,deliveries,searches,kills

# The longest comes first, so that no process is left alone with it.
DJSTRIPE_TESTS := tests/legacy/djstripe_plans tests/contrib/djstripe

# On a clean checkout: test processes that begin together would each compile all of it.
COMPILE = TEST_DATABASE=sqlite $(1)/pytest -q --co -n 0 >/dev/null 2>&1 || true

compiled: $(READY)
	@$(call COMPILE,$(BIN))

ON_SQLITE := TEST_DATABASE=sqlite TEST_WITHOUT=programs,timed
WITHOUT_TIME_ZONES := TEST_DATABASE=sqlite TEST_USE_TZ=0 TEST_WITHOUT=once,gates,cache,deliveries,searches,programs,crowds,timeless

sqlite-test: $(READY)
	@echo "== Tests, $(ON_SQLITE) =="
	@env $(ON_SQLITE) $(BIN)/$(PYTEST) $(ARGS) || $(NONE_OF_ARGS_HERE)

without-time-zones-test: $(READY)
	@echo "== Tests, $(WITHOUT_TIME_ZONES) =="
	@env $(WITHOUT_TIME_ZONES) $(BIN)/$(PYTEST) $(ARGS) || $(NONE_OF_ARGS_HERE)

# Ready before it is needed, where something else is waited for meanwhile.
newest-environment: $(READY)
	@$(BIN)/python -c "$(IS_3_12)" || { python=$(FIND_NEWEST) && [ -z "$$python" ]; } || \
		{ $(MAKE) --no-print-directory $(NEWEST)/ready NEWEST_PYTHON="$$python" && { $(call COMPILE,$(NEWEST)/bin); }; }

# On PostgreSQL, and on the newest Django. Django 6.0 and newer need Python 3.12.
newest-test: $(READY)
	@if $(BIN)/python -c "$(IS_3_12)"; then \
		bin=$(BIN); \
	elif python=$(FIND_NEWEST) && [ -n "$$python" ]; then \
		$(MAKE) --no-print-directory $(NEWEST)/ready NEWEST_PYTHON="$$python" && bin=$(NEWEST)/bin; \
	else \
		echo "== NOT tested on the newest Django: no Python 3.12 is found. NEWEST_PYTHON=/path/to/python names one. =="; \
		bin=$(BIN); \
	fi && \
	echo "== Tests, $(ON_POSTGRESQL), Django $$($$bin/python -m django --version) ==" && \
	{ env $(ON_POSTGRESQL) $$bin/$(PYTEST) $(ARGS) || $(NONE_OF_ARGS_HERE); }

djstripe-environment: $(BESIDE)/ready

djstripe-test: $(BESIDE)/ready
	@for setup in "TEST_DATABASE=sqlite" "TEST_DATABASE=postgresql TEST_SUBSCRIBER=organisation TEST_WITHOUT=once"; do \
		echo "== Tests beside dj-stripe, $$setup =="; \
		env TEST_DJSTRIPE=1 $$setup $(BESIDE)/bin/$(PYTEST) $(if $(filter tests/%,$(ARGS)),,$(DJSTRIPE_TESTS)) $(ARGS) || \
			$(NONE_OF_ARGS_HERE) || exit 1; \
	done

# TEST_SEED draws another story, TEST_EXAMPLES makes the search longer or shorter.
soak: $(READY)
	@echo "== A whole site, killed while 3,000 events happen: some five minutes =="
	@env TEST_DATABASE=postgresql TEST_SOAK=1 $(BIN)/pytest -q tests/soak
	@echo "== A search for an order of things that breaks a promise =="
	@env TEST_EXAMPLES=$${TEST_EXAMPLES:-300} $(BIN)/pytest -q tests/test_state_machine.py tests/test_catalog_machine.py \
		tests/test_explain.py::test_an_explanation_and_the_gates_say_the_same_whatever_happened

bench: $(BENCHED)/ready
	@$(BENCHED)/bin/python -m bench.gate $(BENCH)

bench-intake bench-batches bench-fetch bench-bytes bench-admin: bench-%: $(BENCHED)/ready
	@$(BENCHED)/bin/python -m bench.$* $(BENCH)

lint: $(READY)
	@echo "== ruff format =="; $(BIN)/ruff format --check .
	@echo "== ruff check =="; $(BIN)/ruff check .
	@echo "== mypy =="; $(BIN)/mypy
	@echo "== lint-imports =="; $(BIN)/lint-imports

check-python:
	$(CHECK_PYTHON)

$(READY): pyproject.toml $(if $(filter-out file,$(origin PYTHON)),| check-python)
	$(CHECK_PYTHON)
	@echo "Making the environment in .venv; the first time takes a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BENCHED)/ready: pyproject.toml
	$(CHECK_PYTHON)
	@echo "Making the environment in $(BENCHED)."
	@$(PYTHON) -m venv --clear $(BENCHED)
	@$(BENCHED)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(BESIDE)/ready: pyproject.toml
	$(CHECK_PYTHON)
	@echo "Making the environment in $(BESIDE)."
	@$(PYTHON) -m venv --clear $(BESIDE)
	@$(BESIDE)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev-tests,djstripe,drf,jinja]'
	@touch $@

$(NEWEST)/ready: pyproject.toml
	@echo "Making the environment in $(NEWEST) with $(NEWEST_PYTHON)."
	@$(NEWEST_PYTHON) -m venv --clear $(NEWEST)
	@$(NEWEST)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[dev-tests,drf,jinja]'
	@touch $@
