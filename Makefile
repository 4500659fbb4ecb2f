# The verbs of this checkout. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
INV ?= inventories/demo
# Where `make test` leaves what a person may want to look at afterwards.
ARTEFACTS ?= build
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
PLAY := ansible-playbook -i $(INV)

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: env
env: ## Make .venv and .collections (Python >= 3.12; name one with PYTHON=...)
	@scripts/bootstrap

.PHONY: lock
lock: env ## Write requirements.lock anew from pyproject.toml
	uv pip compile --quiet --upgrade --group dev --universal --python-version 3.12 --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock

.PHONY: hooks
hooks: env ## Run the static checks before each commit
	pre-commit install

.PHONY: demo
demo: env ## Make the demo's machine, set it up, prove it and say what to try
	@scripts/demo up

.PHONY: demo-down
demo-down: env ## Remove all that the demo made
	@scripts/demo down

.PHONY: check
check: env ## Check contracts and customers without touching a machine (INV=inventories/...)
	$(PLAY) playbooks/check.yml

.PHONY: site
site: env ## Bring machines and resellers to the wanted state (INV=inventories/...)
	$(PLAY) playbooks/site.yml

.PHONY: verify
verify: env ## Prove a site from outside (INV=inventories/...)
	$(PLAY) playbooks/verify.yml

.PHONY: dns
dns: env ## Print the DNS records that every domain needs (INV=inventories/...)
	$(PLAY) playbooks/dns.yml

.PHONY: test
test: env ## All tests: static, unit, module and scenario, acceptance, faults
	@scripts/test

.PHONY: static unit lab scenario acceptance faults
static: env ## Style, specs, schemas, generated documents
	@scripts/test static
unit: env ## Decisions, and the directory against a real PostgreSQL
	@scripts/test unit
lab: env ## The lab that the other layers stand on
	@scripts/test lab
scenario: env ## Building blocks on machines of their own (Molecule)
	@scripts/test scenario
acceptance: env ## The demo site from outside, as people use it
	@scripts/test acceptance
faults: env ## Playbooks killed half-way, services killed under load
	@scripts/test faults

.PHONY: soak
soak: env ## What takes too long for every change: the lab on Debian 12 and 13 hosts with systemd
	pytest tests/lab/test_lab_host.py

.PHONY: bench
bench: env ## What things cost, side by side, with a picture (build/bench.svg)
	@scripts/bench

.PHONY: documents
documents: env ## Write the generated pages anew: role READMEs, variable reference, schemas
	@scripts/documents
	@scripts/schemas

.PHONY: build
build: env ## The collection as an archive, in build/
	@scripts/build
