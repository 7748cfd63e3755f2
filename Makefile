# Each target that runs something first makes sure of .venv. PYTHON=python3.12 chooses the Python it is made with.

PYTHON ?=
export PYTHON
in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH" SPARK_LOCAL_IP=127.0.0.1

# Package registries are named in nobody's files: which one serves is the machine's choice. (The brackets keep the
# pattern from matching itself.)
registries := pypi[.]org|pythonhosted[.]org|npmjs[.](com|org)|yarnpkg[.]com|conda[.]anaconda[.]org|debian[.]org/debian
registries := $(registries)|(archive|security|ports)[.]ubuntu[.]com|repo1?[.]maven|proxy[.]golang[.]org|crates[.]io

.DEFAULT_GOAL := help
.PHONY: help demo test check bench golden package airflow lock clean chosen-python

help: ## This list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

demo: .venv/.ready ## Two nights of real flights: trained, scored, verified, published, looked up, rolled back
	@$(in_venv) almanac demo

test: .venv/.ready ## All tests, with coverage; ARGS="tests/lookup -x" runs some of them
	$(in_venv) python -m pytest $(if $(ARGS),$(ARGS),--numprocesses=2 --dist=loadfile --cov=schemas --cov=lookup \
		--cov=validation --cov-report=term:skip-covered --cov-fail-under=90)

check: .venv/.ready ## Format, lint, types, import contracts
	$(in_venv) ruff format --check .
	$(in_venv) ruff check .
	$(in_venv) mypy
	$(in_venv) lint-imports
	@git grep --untracked -nIE '$(registries)'; [ $$? -eq 1 ] || { \
		echo 'A file names a package registry, or git could not look.' >&2; exit 1; }

bench: .venv/.ready ## The figures, one JSON line each
	@$(in_venv) python -m benchmarks $(ARGS)

golden: .venv/.ready ## Write the golden files anew; the diff is for review
	$(in_venv) ALMANAC_GOLDEN=write python -m pytest $$(grep -ril golden tests --include='test_*.py') $(ARGS)

package: .venv/.ready ## dist/: the wheel, and the same as almanac.zip for --py-files, which passes over a .whl
	rm -rf dist
	$(in_venv) hatchling build -t wheel -d dist
	cp dist/almanac-*.whl dist/almanac.zip

airflow: .venv/.ready ## The demo's pipeline, run in a local Airflow; ARGS=--once ends with the run, Ctrl-C at any time
	@$(in_venv) python -m jobs.airflow_demo $(ARGS)

lock: ## Write requirements.lock from pyproject.toml, with uv; UPGRADE=1 takes the newest versions
	@command -v uv >/dev/null || { echo 'make lock needs uv on PATH: pip install uv' >&2; exit 2; }
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --quiet $(if $(UPGRADE),--upgrade) -o requirements.lock

clean: ## Remove .venv and all caches; the store (.almanac) and data/ stay
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist spark-warehouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: $(wildcard requirements.lock) pyproject.toml $(wildcard jobs/kernel/*.[ch]) $(if $(PYTHON),chosen-python)
	@command -v $(or $(PYTHON),python3) >/dev/null || { \
		echo 'Almanac needs Python 3.11 or 3.12, and $(or $(PYTHON),python3) is not there: install one of them.' >&2; exit 2; }
	@$(or $(PYTHON),python3) .ci/environment.py

# A chosen Python is compared with that of .venv, which takes no time where they agree.
chosen-python:
