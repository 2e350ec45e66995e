# make demo    the simulated display as a picture: demo.png
# make test    the tests
# make check   lint, import contracts, types, tests
# make lab     the tests that need real kernel drivers, in a virtual machine
# make bench   the figures
# make fuzz    coverage-guided fuzzing of bad displays and workers, MINUTES=10
# Each makes the virtual environment .venv and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.dev

.PHONY: demo test check lab bench fuzz clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/mdevdisplay screenshot sim:1920x1080,cursor=on --cursor -o demo.png
	$(BIN)/mdevdisplay info sim:1920x1080,cursor=on
	@echo "Look at demo.png; '$(BIN)/mdevdisplay watch sim:' shows it live."

test: $(DEV)
	$(BIN)/pytest

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest

lab: $(DEV)
	lab/test
	lab/test --kernel 6.12 $(foreach part,mdpy mbochs refusals cdev_vms gpu doctor,tests/lab/test_$(part).py)

bench: $(DEV)
	$(BIN)/python bench/run.py
	lab/run -- $(BIN)/python bench/lab_surface.py

MINUTES ?= 10

fuzz: $(DEV)
	$(BIN)/python -m pip install --quiet --group fuzz
	mkdir -p fuzz/corpus
	nice -n 19 $(BIN)/python fuzz/plane_to_rgb.py fuzz/corpus fuzz/seeds \
	    -max_total_time=$$(($(MINUTES) * 60)) -print_final_stats=1 -artifact_prefix=fuzz/

clean:
	rm -rf $(VENV) demo.png build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(READY): pyproject.toml tools/make-venv
	tools/make-venv $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(DEV): $(READY) tools/system-packages
	tools/system-packages
	$(BIN)/python -m pip install --quiet --group dev
	touch $@
