# make demo | test | triton | study | docs | bench | clean. Each sets up what it needs in .venv inside this checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# Many tests start processes; each would compile every module anew where no bytecode may be kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test browser lint triton study docs bench clean

demo: $(VENV)/.demo
	$(BIN)/pluria demo --out out/demo

# Types and what is installed take one processor each, so they go side by side.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j 2 browser lint triton
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not study" --cov --cov-append --cov-report=term:skip-covered --cov-fail-under=90

browser:
	scripts/browser.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# GPU kernels, run as Python by Triton's interpreter, which is switched on for a whole process. Coverage is kept for `test`.
triton: $(VENV)/.dev
	rm -f .coverage
	@if $(PIP) install --quiet -c constraints.txt --group triton; then \
	  TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/gpu --cov --cov-report=; \
	else echo "SKIPPED tests/gpu: Triton cannot be installed here; it has wheels for Linux"; fi

# What the studies print is kept, with machine and date, in a text file for each module.
study: $(VENV)/.dev
	$(BIN)/python -m pytest -v -m study --timeout=3600 --keep tests/study/results

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# UNCERTAINTY names a Python that has torch-uncertainty, MERGEKIT an executable mergekit-pytorch, to stand beside ours.
# Compiling needs a C++ compiler. Sixteen copies of the encoder beside others take 24 GB: they stand alone, without stacks.
UNCERTAINTY ?=
MERGEKIT ?=
RESNET := data/cifar10_resnets/resnet20.safetensors
EIGHT := --members 8 --repeats 2 --no-vmap
BESIDE := $(if $(UNCERTAINTY),--uncertainty $(UNCERTAINTY))

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.rounding
	$(BIN)/python -m benchmarks.writing --turns 24
	$(BIN)/python -m benchmarks.ahead
	$(BIN)/python -m benchmarks.prediction resnet20 --rows 10000 $(EIGHT) --out bars-resnet20
	-$(BIN)/python -m benchmarks.prediction resnet20 --rows 10000 $(EIGHT) --no-copies --backend compiled --batch 128 --out bars-resnet20-compiled
	$(BIN)/python -m benchmarks.prediction resnet20 --rows 10000 $(EIGHT) --no-copies --backend int8 --out bars-resnet20-int8
	$(BIN)/python -m benchmarks.prediction bert --rows 32 $(EIGHT) --no-copies --backend bfloat16 --out bars-bert-bfloat16
	$(BIN)/python -m benchmarks.prediction bert --rows 32 $(EIGHT) --no-copies --backend int8 --out bars-bert-int8
	$(BIN)/python -m benchmarks.products
	$(BIN)/python -m benchmarks.profile resnet20 --rows 256
	$(BIN)/python -m benchmarks.profile bert --rows 8 --backend int8
	$(BIN)/python -m benchmarks.prediction resnet20 --rows 512 --repeats 2 $(BESIDE)
	$(BIN)/python -m benchmarks.prediction bert --rows 4 --repeats 2 --members 1 --members 4 --members 8 $(BESIDE)
	$(BIN)/python -m benchmarks.prediction bert --rows 4 --repeats 2 --members 16 --no-vmap --out prediction-bert-16
	$(BIN)/python -m benchmarks.prediction vit --rows 64 --repeats 2 $(BESIDE)
	$(BIN)/python -m benchmarks.fidelity
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.files $(if $(wildcard $(RESNET)),--checkpoint $(RESNET),--no-keep)
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.generate --size large --batch 1 --members 4 --members 8 --tokens 64 --out generate-large
	$(BIN)/python -m benchmarks.cascade --json benchmarks/results/cascade.json
	$(BIN)/python -m benchmarks.merge $(if $(MERGEKIT),--mergekit $(MERGEKIT))
	$(BIN)/python -m benchmarks.table

# torch comes first and pinned: a CPU build, from the configured index, else from PyTorch's own. Other systems than
# Linux have CPU builds under the plain version.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Pluria needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	@if [ "$$(uname)" = Linux ]; then \
	  $(PIP) install --quiet "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(PIP) install --quiet "torch==$(TORCH)+cpu" --extra-index-url https://download.pytorch.org/whl/cpu; \
	else $(PIP) install --quiet "torch==$(TORCH)"; fi
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e '.[sklearn]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e '.[sklearn]' --group test --group lint
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e '.[sklearn]' --group docs
	touch $@

clean:
	rm -rf $(VENV) out dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .coverage
