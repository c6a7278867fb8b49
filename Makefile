# `make all` and `make test` are the two commands: each sets everything up on a machine that has only python3 (3.11 to
# 3.13, with venv), git and make. In an environment of your own, call snakemake, dvc and pytest directly.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
VENV := .venv
READY := $(VENV)/ready
OPENPIFPAF ?= workflow/envs/openpifpaf/.venv
UV := $(VENV)/bin/uv
SLURM_LOCK := workflow/envs/slurm/requirements.lock
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Without byte code every start of snakemake costs seconds.
export UV_COMPILE_BYTECODE := 1
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

.PHONY: all test openpifpaf seeds methods gpu-benchmarks lint format lock slurm setup clean help

all: $(READY)  ## set up, then run the embedded benchmark: images to TABLE I-IV
	snakemake --cores $(CORES) -- all

# OpenPifPaf's environment is a part of the set-up where it can be built (a C++ compiler, Python 3.10 or 3.11); elsewhere
# its tests are skipped, and say so. The files of tests are shared out to processes, whole, because the tests of a file often
# share one run of the workflow. A process needs up to 2 GB.
test: $(READY)  ## set up, then run every test
	@bash workflow/envs/openpifpaf/build.sh $(OPENPIFPAF) || echo "going on without OpenPifPaf: its tests are skipped"
	python -m pytest -q -n $$(( $(CORES) < 4 ? $(CORES) : 4 )) --dist loadfile

openpifpaf: $(READY)  ## the environment of OpenPifPaf, which finds key points where none are published
	bash workflow/envs/openpifpaf/build.sh $(OPENPIFPAF)

seeds: $(READY)  ## the embedded benchmark over three seeds (reports/embedded-three-seeds)
	snakemake --cores $(CORES) --configfile config/config.yaml config/three-seeds.yaml -- all

methods: $(READY)  ## the methods of TABLE I to III beside PoT-GAN on the embedded data set (reports/embedded-methods)
	snakemake --cores $(CORES) --configfile config/config.yaml config/methods.yaml config/methods-embedded.yaml -- all

gpu-benchmarks: $(READY)  ## timings of the training engine on a GPU, as JSON in results/speed (PATN=CHECKOUT adds PATN)
	bash benchmarks/speed/gpu.sh results/speed $(PATN)

lint: $(READY)  ## what CI checks beside the tests
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

format: $(READY)  ## rewrite the sources in the house format
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

lock: $(READY)  ## compile requirements.lock from pyproject.toml
	uv pip compile --quiet --universal --generate-hashes --extra test --custom-compile-command 'make lock' pyproject.toml --output-file requirements.lock
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["slurm"])' | \
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint requirements.lock --no-annotate \
	$$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock | sort -u) \
	--custom-compile-command 'make lock' - --output-file $(SLURM_LOCK)

# Not a part of the set-up: with it every start of snakemake takes a second longer.
slurm: $(READY)  ## Snakemake's executor for Slurm, into the environment
	uv pip install --quiet --no-deps --require-hashes -r $(SLURM_LOCK)

# For tests/pipeline/test_slurm.py: beside the environment, so that the other tests stay quick.
build/slurm-plugin: $(READY) $(SLURM_LOCK)
	uv pip install --quiet --no-deps --require-hashes --target $@ -r $(SLURM_LOCK)
	touch $@

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"potgan needs Python 3.11 to 3.13, and {sys.executable} is {v[0]}.{v[1]}: call make PYTHON=/path/to/python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(VENV)/bin/python -m pip install --quiet 'uv>=0.9,<1'
	$(UV) pip sync --quiet --require-hashes requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:  ## remove the environment; results and reports stay
	rm -rf $(VENV)

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'
