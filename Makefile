# make test        runs the quick tests
# make test-all    runs all tests, those that take long or need an extra too
# make quickstart  runs everything on a tiny made-up world, from archives to links
# make clean       removes what these made
# Each sets up .venv by itself; PYTHON is any interpreter from 3.11 to 3.13.

PYTHON ?= python3
BIN := .venv/bin
QUICKSTART := build/quickstart
WORLD := $(QUICKSTART)/world
RUN := $(QUICKSTART)/run
FLAGS := experiments/quickstart

.PHONY: test test-all quickstart clean

test: .venv/installed
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests

test-all: .venv/installed
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -q tests

# What a step has published is not done again, so a second `make quickstart` goes on from there.
quickstart: .venv/installed $(WORLD)/made
	$(BIN)/mel-prepare-data --flagfile=$(FLAGS)/prepare_data.flags
	$(BIN)/mel-run-rounds --flagfile=$(FLAGS)/run_rounds.flags
	$(BIN)/mel-evaluate --workdir=$(RUN) --name=alias_table-tree --model=alias_table --mewsli=$(WORLD)/mewsli
	$(BIN)/mel-export --workdir=$(RUN)
	$(BIN)/mel-link --bundle=$(RUN)/bundle --input=$(FLAGS)/texts.jsonl --output=$(QUICKSTART)/links.jsonl
	$(BIN)/python $(FLAGS)/show_table.py $(RUN) $(QUICKSTART)/links.jsonl

# Another world makes what was prepared from the old one worthless.
$(WORLD)/made: tests/tiny_world.py tests/tiny_world_words.py | .venv/installed
	rm -rf $(QUICKSTART)
	$(BIN)/python -m tests.tiny_world --output=$(WORLD)
	touch $@

.venv/installed: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build mel_linker.egg-info
