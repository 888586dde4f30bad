# Every command does its own set-up. It needs Python 3.11 or newer, make and a package index; nothing else.
#
# PYTHON=python3.12   the interpreter to develop with (python3)
# UPGRADE=1           with `make lock`: take the newest versions the index has

ifeq ($(filter oneshell,$(.FEATURES)),)
$(error GNU make 3.82 or newer is needed; this is $(MAKE_VERSION))
endif
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
CODE := benchmarks examples functions layers local tests
SAM := .tools/sam/bin/sam
# A file's tests share what it starts, so they stay together. In order, since the longest (the crashes) comes early. One more
# than there are processors, since tests wait too: a fifth faster on two of them.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
IN_PARALLEL = --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

export SAM_CLI_TELEMETRY := 0

# uv does not read pip's settings, and a machine with an index of its own has usually told pip only.
define index_of_pip
index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null || true)}}
if [[ -n "$$index" ]]; then export UV_DEFAULT_INDEX="$$index"; fi
if [[ -n "$${PIP_EXTRA_INDEX_URL:-}" ]]; then export UV_INDEX="$${UV_INDEX:-$$PIP_EXTRA_INDEX_URL}"; fi
if [[ -n "$${PIP_FIND_LINKS:-}" ]]; then export UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}"; fi
if [[ -n "$${PIP_CERT:-}" ]]; then export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$PIP_CERT}"; fi
endef

include tests/real/parts.mk

.PHONY: help
help:  ## this list
	sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: demo
demo: .venv/.ready  ## a reply, and one that is cut and resumed, on this machine, in some seconds
	exec $(BIN)/python -m local.demo

# With EXAMPLE=agent an agent answers (examples/agent). What it imports is in an environment of its own.
.PHONY: run
run: $(if $(EXAMPLE),.tools/agents/.ready,.venv/.ready)  ## everything on http://127.0.0.1:8787, until Ctrl-C
	if [[ -n "$(EXAMPLE)" ]]; then
		export PYTHONPATH="$(abspath layers/tailrace):$(abspath examples/$(EXAMPLE))"
		export TAILRACE_PROVIDERS="support=agent:support" TAILRACE_PROVIDER=support
		exec .tools/agents/bin/python -m local
	fi
	exec $(BIN)/python -m local

.PHONY: test
test: .venv/.ready  ## the tests; they need nothing and nobody
	$(BIN)/pytest $(IN_PARALLEL)

.PHONY: reference
reference: .venv/.ready  ## docs/reference.md, from the docstrings
	exec $(BIN)/python -m tests.reference

.PHONY: types
types: .venv/.ready .tools/clients/.ready  ## web/types, what TypeScript makes of the browser client
	rm -rf web/types
	node=$$($(BIN)/python -c 'from tests.clients.__main__ import find_node; print(find_node() or "node")')
	"$$node" .tools/clients/node_modules/typescript/bin/tsc --project web

.PHONY: mutants
mutants: .venv/.ready  ## faults planted in a copy of the library, one at a time: who notices; some minutes
	exec $(BIN)/python -m tests.mutants

.PHONY: test-crash
test-crash: .venv/.ready  ## a hundred times kill -9 in mid-reply, and every reader checked; some minutes
	exec $(BIN)/python -m tests.crash 100

.PHONY: test-clients
test-clients: .venv/.ready .tools/clients/.ready .tools/python-clients/.ready  ## the clients that people have, in Node 24 and in Python, against the whole stack
	exec $(BIN)/python -m tests.clients

.PHONY: test-api
test-api: .venv/.ready .tools/api/.ready  ## every operation of the OpenAPI document, tried with made-up requests; some minutes
	exec $(BIN)/python -m tests.api

.PHONY: test-agents
test-agents: .tools/agents/.ready  ## agents of frameworks as providers, each with a fake model, as PyPI has them
	# An environment of its own, which the library is not installed in.
	PYTHONPATH="$(abspath layers/tailrace)" .tools/agents/bin/python -m pytest tests/agents \
		--override-ini 'python_files=agents_of_*.py'

.PHONY: test-browser
test-browser: .venv/.ready .tools/clients/.ready .tools/browser/.ready .tools/react/.ready  ## pages in a real Chromium, against the whole stack
	exec $(BIN)/python -m tests.browser

.PHONY: pictures
pictures: .venv/.ready .tools/clients/.ready .tools/browser/.ready  ## the pictures of the README, of the page as it is
	exec $(BIN)/python -m tests.browser --pictures

.PHONY: test-real
test-real: .venv/.ready $(REAL_PARTS)  ## with the parts that AWS made, which it fetches; what `make build` built; some minutes
	$(BIN)/python -m tests.real.lambda_emulator
	# By their names: pytest drops, without a word, a file that is named beside the folder it lies in.
	$(BIN)/pytest --dynamodb-local $(IN_PARALLEL) --override-ini 'python_files=test_*.py built_*.py'

.PHONY: check
check: .venv/.ready  ## format, lint, types, and that the locks are current
	# By name: outside a git repository ruff would also read the built layer and the tools.
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(MAKE) --no-print-directory check-locks

.PHONY: bench
bench: .venv/.ready  ## the measurements behind benchmarks/README.md
	exec $(BIN)/python -m benchmarks

.PHONY: bench-peers
bench-peers: .venv/.ready $(addprefix .tools/peers/,sdk/.ready litellm/.ready portkey/.ready)  ## Tailrace beside other relays, and docs/comparison.md of it; half an hour
	exec $(BIN)/python -m benchmarks.peers --page

.PHONY: bench-built
bench-built: .venv/.ready $(REAL_PARTS)  ## cold starts, memory and sizes of what `make build` built; some minutes
	exec $(BIN)/python -m benchmarks.built

# ---- the layer and the stack ---------------------------------------------------------------------

.PHONY: build
build: .venv/.ready .tools/sam/.ready .tools/lint/.ready  ## what `sam deploy` uploads, for arm64 and x86_64, then proved and measured
	$(index_of_pip)
	export TAILRACE_UV="$(abspath $(UV))"
	if [[ "$${TAILRACE_BYTECODE:-}" != skip ]]; then
		TAILRACE_PYTHON=$$(layers/tailrace/find-python 3.13)
		export TAILRACE_PYTHON
	fi
	# The region only chooses the rules to lint by.
	$(SAM) validate --lint --region "$${AWS_REGION:-us-east-1}"
	for example in summary agent; do
		$(SAM) validate --lint --region "$${AWS_REGION:-us-east-1}" --template "examples/$$example/template.yaml"
	done
	.tools/lint/bin/cfn-lint template.yaml examples/summary/template.yaml examples/agent/template.yaml
	.tools/lint/bin/checkov --config-file .checkov.yaml
	$(SAM) build --no-cached
	# An example as its user builds it, for the machine that tests it.
	ARCHITECTURE="$$(uname -m)" $(SAM) build --no-cached --template examples/agent/template.yaml --build-dir .aws-sam/agent
	$(BIN)/python -m local.sam_local
	$(SAM) validate --lint --region "$${AWS_REGION:-us-east-1}" --template .aws-sam/build/local.yaml
	$(BIN)/python -m tests.built.built_layer
	$(BIN)/pytest tests/built/built_layer.py

.PHONY: page
page: .venv/.ready  ## the page, into the bucket of a stack that was deployed with Page=on: STACK=tailrace
	exec $(BIN)/python -m local.deployed_page "$${STACK:-tailrace}"

# ---- locks -----------------------------------------------------------------------------------------

# Hash-locked requirements, for every platform and no particular index. The layer's follows the lock's versions.
LOCKS := requirements/uv.txt requirements/dev.txt requirements/sam.txt requirements/ric.txt requirements/lint.txt \
	requirements/clients.txt requirements/agents.txt requirements/api.txt \
	requirements/peers-sdk.txt requirements/peers-litellm.txt \
	layers/tailrace/requirements.txt layers/tailrace/requirements-tokens.txt examples/agent/requirements.txt
compile = "$(abspath $(UV))" pip compile --quiet --python "$(abspath $(BIN)/python)" --universal --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
define write_locks
$(compile) --python-version 3.11 requirements/uv.in --output-file requirements/uv.txt
$(compile) --python-version 3.11 requirements/sam.in --output-file requirements/sam.txt
$(compile) --python-version 3.11 requirements/lint.in --output-file requirements/lint.txt
$(compile) --python-version 3.11 requirements/clients.in --output-file requirements/clients.txt
$(compile) --python-version 3.11 requirements/api.in --output-file requirements/api.txt
$(compile) --python-version 3.11 requirements/peers-sdk.in --output-file requirements/peers-sdk.txt
$(compile) --python-version 3.11 requirements/peers-litellm.in --output-file requirements/peers-litellm.txt
$(compile) --python-version 3.11 pyproject.toml --all-extras requirements/agents.in --output-file requirements/agents.txt
$(compile) --python-version 3.13 requirements/ric.in --output-file requirements/ric.txt
$(compile) --python-version 3.11 pyproject.toml --group dev --output-file requirements/dev.txt
$(compile) --python-version 3.13 pyproject.toml --constraints requirements/dev.txt \
	--output-file layers/tailrace/requirements.txt
$(compile) --python-version 3.13 requirements/tokens.in --constraints requirements/dev.txt \
	--output-file layers/tailrace/requirements-tokens.txt
$(compile) --python-version 3.13 examples/agent/requirements.in --constraints requirements/agents.txt \
	--no-universal --python-platform x86_64-manylinux_2_28 --output-file examples/agent/requirements.txt
endef

.PHONY: lock
lock: .venv/.uv  ## lock what pyproject.toml and requirements/*.in ask for
	$(index_of_pip)
	$(write_locks)

# Locks again in a copy: versions already locked are kept, so only a change of what is asked for shows.
.PHONY: check-locks
check-locks: .venv/.uv
	rm -rf .tools/locks
	mkdir -p .tools/locks/layers/tailrace .tools/locks/examples/agent
	cp -R pyproject.toml requirements .tools/locks/
	cp layers/tailrace/requirements*.txt .tools/locks/layers/tailrace/
	cp examples/agent/requirements.* .tools/locks/examples/agent/
	cd .tools/locks
	$(index_of_pip)
	$(write_locks)
	for lock in $(LOCKS); do
		diff -u "../../$$lock" "$$lock" || { echo "$$lock is out of date: run make lock" >&2; exit 1; }
	done

# ---- set-up ----------------------------------------------------------------------------------------

.venv/.uv: requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1 || true). Try make PYTHON=python3.12" >&2
		exit 1
	}
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
		echo "$(PYTHON) has no venv module (on Debian and Ubuntu: apt install python3-venv)" >&2
		exit 1
	}
	echo "Setting up .venv ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $@

# Building the project itself needs the locked uv_build and no other download.
.venv/.ready: .venv/.uv requirements/dev.txt pyproject.toml
	$(index_of_pip)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/uv.txt requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.tools/sam/.ready: .venv/.uv requirements/sam.txt
	echo "Setting up .tools/sam ..."
	$(PYTHON) -m venv --without-pip .tools/sam
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/sam/bin/python --require-hashes requirements/sam.txt
	touch $@

# Registry and certificates are those that npm is set up with; the lock has no more than names and hashes.
.tools/clients/.ready: tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc
	command -v npm >/dev/null || {
		echo "npm is needed, of any Node; the tests bring Node 24 with them" >&2
		exit 1
	}
	echo "Setting up .tools/clients ..."
	mkdir -p .tools/clients
	cp $^ .tools/clients/
	cd .tools/clients
	npm ci --loglevel=error
	touch .ready

.tools/browser/.ready: $(addprefix tests/browser/,package.json package-lock.json .npmrc unpack.js fonts.conf) | .tools/clients/.ready
	echo "Setting up .tools/browser ..."
	mkdir -p .tools/browser
	cp $^ .tools/browser/
	cd .tools/browser
	npm ci --loglevel=error
	node unpack.js
	touch .ready

# The example as a user has it: its own lock, its own build.
REACT := examples/react
.tools/react/.ready: $(wildcard $(REACT)/*.* $(REACT)/.npmrc $(REACT)/src/*) | .venv/.ready .tools/clients/.ready
	echo "Setting up .tools/react ..."
	rm -rf .tools/react/src
	mkdir -p .tools/react
	cp -R $(REACT)/. .tools/react/
	cd .tools/react
	npm ci --loglevel=error
	# By the locked Node: Vite wants a new one, and npm may have come with any.
	node=$$(cd ../.. && $(BIN)/python -c 'from tests.clients.__main__ import find_node; print(find_node() or "node")')
	"$$node" node_modules/vite/bin/vite.js build --logLevel warn
	touch .ready

.tools/python-clients/.ready: .venv/.uv requirements/clients.txt
	echo "Setting up .tools/python-clients ..."
	$(PYTHON) -m venv --without-pip .tools/python-clients
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/python-clients/bin/python --require-hashes requirements/clients.txt
	touch $@

.tools/api/.ready: .venv/.uv requirements/api.txt
	echo "Setting up .tools/api ..."
	$(PYTHON) -m venv --without-pip .tools/api
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/api/bin/python --require-hashes requirements/api.txt
	touch $@

.tools/peers/%/.ready: .venv/.uv requirements/peers-%.txt
	echo "Setting up .tools/peers/$* ..."
	$(PYTHON) -m venv --without-pip .tools/peers/$*
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/peers/$*/bin/python --require-hashes requirements/peers-$*.txt
	touch $@

.tools/peers/portkey/.ready: $(addprefix benchmarks/peers/portkey/,package.json package-lock.json .npmrc)
	command -v npm >/dev/null || {
		echo "npm is needed, of any Node; the gateway's own comes with it" >&2
		exit 1
	}
	echo "Setting up .tools/peers/portkey ..."
	mkdir -p .tools/peers/portkey
	cp $^ .tools/peers/portkey/
	cd .tools/peers/portkey
	npm ci --loglevel=error
	touch .ready

.tools/agents/.ready: .venv/.uv requirements/agents.txt
	echo "Setting up .tools/agents ..."
	$(PYTHON) -m venv --without-pip .tools/agents
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/agents/bin/python --require-hashes requirements/agents.txt
	touch $@

.tools/lint/.ready: .venv/.uv requirements/lint.txt
	echo "Setting up .tools/lint ..."
	$(PYTHON) -m venv --without-pip .tools/lint
	$(index_of_pip)
	$(UV) pip sync --quiet --python .tools/lint/bin/python --require-hashes requirements/lint.txt
	touch $@

.PHONY: clean
clean:  ## remove what the other commands made
	rm -rf .venv .tools .aws-sam .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
