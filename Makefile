# make train   sets everything up and runs the main job: a fully convolutional network on the embedded specimens
# make test    sets everything up and runs the tests
# make docs    sets everything up and writes the API reference to build/api
# make icpr2012-cells MANUAL_DIR=DIR I3A_DIR=DIR   trains the reader of cells that we would send to the ICPR 2012 contest
# make icpr2012 MANUAL_DIR=DIR [I3A_DIR=DIR]   the same for whole specimens: a network that finds their cells, and a reader
#     of cells: that of icpr2012-cells or, without I3A_DIR, one that knows the contest's cells alone
# Each works alone on a machine with only Python (3.11 or newer) and make.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
WORKERS ?= 2
MAIN = $(RUN) -m hep2jax.main --config
INSTALLED = $(VENV)/.installed
unexport PYTHONDONTWRITEBYTECODE    # what is imported is compiled once, not by every process

.PHONY: train test test-slow tutorials docs lint setup clean icpr2012 icpr2012-cells

# Without an accelerator, two cores compute half of each batch each. XLA could wait for ever with more devices than cores.
train: export JAX_NUM_CPU_DEVICES ?= $(shell $(PYTHON) -c "import os; \
	print(min(2, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1))")
train: $(INSTALLED)
	$(RUN) -m hep2jax.main --config=configs/fcn.py $(ARGS)

icpr2012: $(INSTALLED)
	@test -n "$(MANUAL_DIR)" || { \
		echo "hep2jax: name the directory of the images: make icpr2012 MANUAL_DIR=DIR (it holds MIVIA_HEp-2_Images_Dataset/)"; exit 2; }
	$(if $(I3A_DIR),$(MAKE) icpr2012-cells ARGS=)
	$(MAIN)=configs/icpr2012_cells.py$(if $(I3A_DIR),,:texture --config.model.init_from=) --config.data.manual_dir=$(MANUAL_DIR) \
		--workdir=runs/icpr2012-cell_reader
	$(MAIN)=configs/icpr2012.py --config.data.manual_dir=$(MANUAL_DIR) $(ARGS)

icpr2012-cells: $(INSTALLED)
	@test -n "$(MANUAL_DIR)" -a -n "$(I3A_DIR)" || { \
		echo "hep2jax: name both directories: make icpr2012-cells MANUAL_DIR=DIR (it holds MIVIA_HEp-2_Images_Dataset/) I3A_DIR=DIR"; \
		exit 2; }
	$(MAIN)=configs/fisher.py:icpr2014_whole --config.data.manual_dir=$(I3A_DIR)
	$(MAIN)=configs/icpr2014_pretraining.py --config.data.manual_dir=$(I3A_DIR)
	$(MAIN)=configs/icpr2012_cells.py:texture --config.data.manual_dir=$(MANUAL_DIR)
	for seed in 0 1 2; do $(MAIN)=configs/icpr2012_cells.py:network --config.data.manual_dir=$(MANUAL_DIR) \
		--config.seed=$$seed --workdir=runs/icpr2012_cells-network-$$seed || exit; done
	$(MAIN)=configs/icpr2012_cells.py:networks --config.data.manual_dir=$(MANUAL_DIR)
	$(MAIN)=configs/icpr2012_cells.py --config.data.manual_dir=$(MANUAL_DIR) $(ARGS)

test: $(INSTALLED)
	$(RUN) -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-slow: $(INSTALLED)
	$(RUN) -m pytest -m slow $(ARGS)

# What the programs of the tutorials compile, they run for seconds.
tutorials: $(INSTALLED)
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(RUN) -m pytest -m slow tests/end_to_end/test_folder_run.py \
		tests/end_to_end/test_tutorials.py $(ARGS)

docs: $(INSTALLED)
	$(RUN) -m scripts.api_reference $(ARGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "hep2jax: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ..."; exit 2; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
