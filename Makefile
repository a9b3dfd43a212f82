# LNHG for developers. Needs make and Python 3.11 or 3.12; every target brings what else it needs into .venv.

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
UV ?= $(or $(shell command -v uv),.uv/bin/uv)
REQUIRE_PYTHON = test -n "$(PYTHON)" || { echo "LNHG needs Python 3.11 or 3.12, and none is on the PATH: install one, \
	or name it with make setup PYTHON=/path/to/python3.12" >&2; exit 2; }
JOBS ?= 2
DEBIAN_PACKAGES = $(shell sed '/^\#/d' requirements/debian.txt)

export LNHG_DATA ?= $(abspath ../shared/data)
export QT_QPA_PLATFORM ?= offscreen
export VTK_DEFAULT_OPENGL_WINDOW ?= vtkEGLRenderWindow

.PHONY: help setup demo test test-slow missing-note lint format screenshots requirements missing-packages

help:  ## say what the targets do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup: .venv/.up-to-date  ## put everything, also lnhg and lnhg-train, into .venv

.venv/.up-to-date: requirements/dev.txt pyproject.toml | $(filter .uv/bin/uv,$(UV))
	@$(REQUIRE_PYTHON)
	@.venv/bin/python -c '' 2>/dev/null || { rm -rf .venv && $(UV) venv --python "$(PYTHON)" .venv; }
	$(UV) pip sync --python .venv/bin/python --require-hashes requirements/dev.txt
	$(UV) pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.uv/bin/uv: requirements/uv.txt
	@$(REQUIRE_PYTHON)
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

demo: setup  ## find the nodules of the embedded synthetic chest CT
	.venv/bin/lnhg demo

test: setup missing-note  ## run the tests that take minutes; PYTEST_ARGS="-k volume" runs some
	.venv/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-slow: setup missing-note  ## run the others: trainings, cohorts, clusters, a browser, real scans
	.venv/bin/python -m pytest -n $(JOBS) --dist loadfile -m slow $(PYTEST_ARGS)

missing-note:
	@missing="$$($(MAKE) --no-print-directory -s missing-packages)"; test -z "$$missing" || printf '%s\n' \
		"Tests that draw Slicer views, check DICOM files or need a browser will be skipped: packages are missing. Install them with" \
		"    sudo apt-get install --no-install-recommends $$missing"

lint: setup  ## check style and formatting
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: setup  ## mend what lint can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

screenshots: setup  ## draw the pictures of the README with the real Slicer views
	.venv/bin/python Testing/slicer/screenshots.py

requirements: | $(filter .uv/bin/uv,$(UV))  ## pin the requirement files again, with hashes, from pyproject.toml
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url -q -o requirements/runtime.txt
	printf "%s ; python_version < '3'\n" torch torchvision | $(UV) pip compile pyproject.toml --extra fast --override - --constraint requirements/runtime.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url -q -o requirements/cpu.txt
	$(UV) pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url -q -o requirements/dev.txt

missing-packages:
	@command -v dpkg-query >/dev/null || exit 0; for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || printf '%s ' $$package; done
