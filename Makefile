# Every target makes .venv and installs what it needs there; only Python 3.11 or later, with pip, is expected on the machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test slow golden lint bench suite clean

demo: $(VENV)/.demo  ## trains a digit classifier as one native loop and shows what was compiled
	$(BIN)/python examples/digits.py

test: $(VENV)/.test  ## the test suite
	$(BIN)/python -m pytest -q

slow: $(VENV)/.test  ## the long tests
	$(BIN)/python -m pytest -q -m slow

golden: $(VENV)/.test  ## golden texts, the dumps in the pages and the stub, written anew: read the diff
	WEFT_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q

lint: $(VENV)/.dev $(VENV)/typing/weft  ## style and types
	$(BIN)/ruff check .
	MYPYPATH=$(VENV)/typing $(BIN)/mypy -p weft

bench: $(VENV)/.bench  ## weft beside torch and JAX
	$(BIN)/python benchmarks/book.py

suite: $(VENV)/.bench  ## the same for kernels, training steps and calls: 20 minutes
	$(BIN)/python benchmarks/suite.py --rounds 1 --second --busy

clean:
	rm -rf $(VENV) build dist *.egg-info

# One stamp an extra, renewed when pyproject.toml changes.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The type checker finds packages by folder name, and this folder may have any.
$(VENV)/typing/weft: | $(BIN)/python
	mkdir -p $(VENV)/typing
	ln -s ../.. $@
