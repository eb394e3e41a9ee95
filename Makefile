# `make train` and `make test` are all a newcomer needs; each sets up .venv on a machine with Python 3.11+.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test setup clean

train: $(READY)
	$(BIN)/torchrun -m resd.train task=manufactoria steps=16 $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not vllm" $(ARGS)

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resd needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" --editable ".[test]"
	touch $(READY)

clean:
	rm -rf .venv build *.egg-info
