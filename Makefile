# make demo   simulate, run the protocol in a Scipion project, compare with the truth
# make test   the whole test suite
# Both create the virtual environment $(VENV) first; a second call uses it as it is.
# The first Python that has what Scipion's windows and virtual environments need; the numpy that Scipion pins is for none from 3.13 on.
NEEDS  := import sys, tkinter, venv, ensurepip; assert (3, 10) <= sys.version_info < (3, 13)
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do if $$python -c "$(NEEDS)" 2> /dev/null; then command -v $$python; break; fi; done)
VENV   ?= .venv
# The version of PyTorch that is installed. TORCH_OPTIONS goes to the same pip command: an index with CPU or other CUDA builds, for instance.
TORCH  ?= torch==2.13.0
TORCH_OPTIONS ?=
DEMO_OUTPUT ?= demo_output
PYTEST_OPTIONS ?=

READY := $(VENV)/.installed

.PHONY: demo test install clean

demo: $(READY)
	$(VENV)/bin/python benchmarks/demo.py $(DEMO_OUTPUT)

test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_OPTIONS)

install: $(READY)

$(READY): setup.py pyproject.toml
	@test -x $(VENV)/bin/python || $(or $(PYTHON),python3) -c "$(NEEDS)" 2> /dev/null || { echo "Python 3.10, 3.11 or 3.12 with venv and tkinter was not found: install it (Debian, Ubuntu: apt-get install python3-venv python3-tk), or name one with PYTHON=..." >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade "setuptools>=61" wheel
	$(VENV)/bin/python -m pip install --quiet $(TORCH_OPTIONS) "$(TORCH)"
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build dist *.egg-info .pytest_cache
