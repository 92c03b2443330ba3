# `make help` lists what can be asked for.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ENGINE ?= buildah
BASE ?=
TASKS ?=
JOBS ?= 2
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What root leaves in the caches of pytest and Hypothesis, the user's own tests could not write any more.
PYTEST := $(SUDO) env HYPOTHESIS_STORAGE_DIRECTORY=build/hypothesis $(if $(CI),CI=$(CI)) \
	.venv/bin/pytest -p no:cacheprovider -n $(JOBS)

.PHONY: help deps demo test test-engines test-ganeti deb test-packages docs lint unit matrix hostile warm \
	helper-image fixtures bench clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install Debian packages and the virtual environment .venv
	@ci/bootstrap

helper-image: deps ## build the helper image into build/helper (ENGINE=buildah|docker, BASE=image, TASKS=directory)
	@$(SUDO) helper-image/build --output build/helper --engine $(ENGINE) $(if $(BASE),--base $(BASE)) \
		$(if $(TASKS),--tasks $(TASKS))

fixtures: deps ## build the fixture images into build/fixtures
	@$(SUDO) fixtures/images/build

demo: deps ## deploy a real Debian, boot it, log in with the new password
	@.venv/bin/python ci/demo.py

lint: deps ## ruff, mypy, the import rule
	@.venv/bin/tox -e lint

unit: deps ## quick tests that need neither root nor qemu
	@.venv/bin/tox -e unit

warm: helper-image ## save the state of a started helper, for those that follow
	@$(SUDO) .venv/bin/snf-image helper warm --helper-dir build/helper --progress none

matrix: warm fixtures ## deploy every cell of ci/matrix.yaml and look at the result; build/matrix/report.html
	@$(PYTEST) vmtests/snf_image_vmtests/test_cells.py --image-report build/matrix

hostile: warm fixtures ## deploy every image of the hostile corpus (vmtests/hostile)
	@$(PYTEST) vmtests/hostile

test: deps ## everything, but of the matrix' generated part every third cell, and 12 hostile images
	@.venv/bin/tox -e lint,unit
	@$(MAKE) --no-print-directory -j 2 docs warm fixtures
	@$(PYTEST) -m "(requires or slow) and not engines"
	@$(PYTEST) vmtests/snf_image_vmtests/test_cells.py vmtests/end_to_end vmtests/hostile \
		--image-report build/matrix --image-sample 3
	@$(MAKE) --no-print-directory test-ganeti test-packages

test-ganeti: warm fixtures ## the OS provider on a real Ganeti cluster of one node, in its own namespaces
	@ci/bootstrap ci/packages-ganeti.txt
	@$(PYTEST) -n 0 vmtests/ganeti

deb: helper-image ## build Debian packages into build/deb
	@ci/bootstrap ci/packages-deb.txt
	@ci/deb

test-packages: deb fixtures ## install, use, upgrade and purge the packages in a fresh Debian 12
	@$(PYTEST) -n 0 vmtests/packages

test-engines: helper-image ## the helper image by a Docker-compatible service, and from a registry: the same bytes
	@ci/bootstrap ci/packages-engines.txt
	@$(PYTEST) -n 0 -m engines host/tests/test_helper_image_build.py

docs: deps ## the documentation as web pages in build/docs; a warning is an error
	@.venv/bin/mkdocs --quiet build --strict --clean

bench: helper-image fixtures ## measure copy, helper and deployment; table and build/bench.json
	@$(SUDO) .venv/bin/python bench/run.py

clean: ## remove what was built, keep downloaded packages
	@$(SUDO) find build -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} + 2>/dev/null || :

distclean: clean ## remove everything that is not in the repository
	@$(SUDO) rm -rf build .venv .tox
