# Two commands for a newcomer: `make demo` and `make test`. Both set everything up first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= a 3D picture of a frog on the left and a strawberry on the right on a blue background
SEED ?= 8
FUZZ_SECONDS ?= 3600
FUZZ_TARGETS ?=

.PHONY: setup demo test chaos soak fuzz lint types imports protos protos-check node-packages kubectl manifests local-overlay check lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/dev.lock pyproject.toml client/muse_client/version.py
	$(PYTHON) scripts/require_python.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# What only the manifests' checks need, a fifth of everything: a demo does without.
$(VENV)/.manifests: requirements/manifests.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/manifests.lock
	touch $@

demo: setup
	$(BIN)/muse generate "$(PROMPT)" --seed $(SEED) --out out/demo.png

test: $(VENV)/.manifests # a file's tests share what they set up, so they stay in one process
	$(BIN)/python -m pytest --quiet --numprocesses auto --maxprocesses 8 \
		--dist loadfile --no-loadscope-reorder --durations 25 --durations-min 3

# FLAGS="--seed 3" and the like change a run; `python -m tests.chaos --help` lists them.
chaos: setup # 30 minutes of faults under load
	$(BIN)/python -m tests.chaos $(FLAGS)

soak: FLAGS ?= --minutes 480 --cancels 100000
soak: setup # 8 hours of faults under load, with 100,000 cancels
	$(BIN)/python -m tests.chaos --out out/soak $(FLAGS)

# For Linux on x86-64, where atheris has wheels.
$(VENV)/.fuzz: requirements/fuzz.lock $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.lock
	touch $@

fuzz: $(VENV)/.fuzz # FUZZ_SECONDS for each of FUZZ_TARGETS, by default of all; see CONTRIBUTING.md
	PYTHONPATH=. $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.manifests
	$(BIN)/mypy services training scripts k8s client tools examples

imports: setup
	$(BIN)/lint-imports

protos: # writes the stubs anew
	sh scripts/generate_stubs.sh

protos-check:
	sh scripts/generate_stubs.sh --check
	cd requirements/buf && npm ci --silent --no-audit --no-fund
	requirements/buf/node_modules/.bin/buf lint
	sh scripts/generate_languages.sh

kubectl: # what renders the manifests, where there is none
	sh scripts/fetch_kubectl.sh

manifests: $(VENV)/.manifests # renders every overlay and says what is wrong
	$(BIN)/python -m k8s.checks k8s/overlays/* k8s/training k8s/training/precompute \
		k8s/policies

local-overlay: $(VENV)/.manifests # what `muse up` runs, after a change of the manifests
	PYTHONPATH=. $(BIN)/python scripts/render_local_overlay.py

node-packages: # of the example, and OpenAI's client: their tests need them
	cd examples/node && npm ci --silent --no-audit --no-fund --ignore-scripts
	cd tests/gateway/node && npm ci --silent --no-audit --no-fund --ignore-scripts

check: lint types imports protos-check node-packages

lock:
	sh scripts/lock.sh

clean:
	rm -rf $(VENV) out
