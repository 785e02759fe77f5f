# `make demo` and `make test` work on a fresh machine with Python 3.11 or later, make, and a way to PyPI.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNTIME := $(VENV)/.runtime
PEER_VERSION := 5.6.0
PEER := .venv-peer
CLIENTS := .venv-clients
PEER_STAMP := $(PEER)/.esptool-$(PEER_VERSION)
# older versions, for what newer ones dropped; they need setuptools' pkg_resources, and 3.3.3 the bitstring of its time
OLD_PEERS := $(PEER)-2.8/.installed $(PEER)-3.3.3/.installed
# esptool 4 and esptool-js, as clients of served chips; the latter from npm, where there is node
PEER_4 := $(PEER)-4.8.1/.installed
PEER_JS := $(PEER)-js/.installed
LAB := .venv-lab
# what idf.py monitor decodes crashes with
PEER_MONITOR := $(PEER)-monitor/.installed
SITE := .venv-site
SITE_STAMP := $(SITE)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
WORKERS ?= 2

.PHONY: help demo test test-all check bench soak docs generate clean venv peer clients peer-clients peer-monitor lab dist dist-check site web test-web stub stub-check stub-host stub-suite stub-sizes
.DEFAULT_GOAL := help

help:
	@echo "make demo      flash real firmware to a virtual chip and inspect the result"
	@echo "make test      run the tests, except the slow ones that it lists at the end"
	@echo "make test-all  run all tests, as CI does; those against esptool need \`make peer\` and ESPWIRE_PEER"
	@echo "make check     lint, format, types on three systems, generated files"
	@echo "make bench     run the benchmarks and compare with esptool $(PEER_VERSION), which it installs in .venv-peer"
	@echo "make clients   install programs that import esptool, for the tests, in .venv-clients"
	@echo "make lab       run the tests with a labgrid coordinator and exporters, in .venv-lab"
	@echo "make soak      run the full-size fault and fuzz tests (hours)"
	@echo "make dist      build the wheels, the source archives, espwire.pyz and the web page"
	@echo "make web       build the web page in build/web (needs node and npm)"
	@echo "make test-web  test the web page in Chromium, after \`make web\`"
	@echo "make site      build the documentation site in build/site"
	@echo "make stub      compile the flasher stub for each chip and pack it (Debian's cross compilers)"
	@echo "make docs      write the generated pages, the output of the commands in README.md and docs/guide, and the picture"
	@echo "make generate  write every generated file"
	@echo "make clean     remove everything that these targets create"

venv: $(STAMP)

# what espwire itself imports, and no more: enough to run it from src
$(RUNTIME): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("espwire needs Python 3.11 or later; make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "setting up $(VENV) (once)"; $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "On Debian and Ubuntu, venv is a package: apt install python3-venv"; exit 1; }; }
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		> $(VENV)/requirements.txt
	@$(PIP) install --no-compile -r $(VENV)/requirements.txt
	@touch $@

$(STAMP): $(RUNTIME) compat/pyproject.toml
	@$(PIP) install -e '.[dev]' -e ./compat
	@touch $@

demo: $(RUNTIME)
	@PYTHONPATH=src $(BIN)/python -m espwire demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --fast $(PYTEST_ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 src
	$(BIN)/mypy --platform darwin src
	$(BIN)/python tools/generate.py --check

# esptool from PyPI, in an environment of its own: never imported, only run as a black box to compare with
peer: $(PEER_STAMP) $(OLD_PEERS)

$(PEER_STAMP):
	@$(PYTHON) -m venv --clear $(PEER)
	@$(PEER)/bin/python -m pip --disable-pip-version-check --quiet --no-input install esptool==$(PEER_VERSION)
	@touch $@

peer-clients: $(PEER_4) $(PEER_JS) $(PEER_MONITOR)

peer-monitor: $(PEER_MONITOR)

$(PEER_MONITOR):
	@$(PYTHON) -m venv --clear $(PEER)-monitor
	@$(PEER)-monitor/bin/python -m pip --disable-pip-version-check --quiet --no-input install esp-idf-panic-decoder==1.5.0
	@touch $@

$(PEER_4):
	@$(PYTHON) -m venv --clear $(PEER)-4.8.1
	@$(PEER)-4.8.1/bin/python -m pip --disable-pip-version-check --quiet --no-input install esptool==4.8.1
	@touch $@

$(PEER_JS): tests/peers/esptool_js/package.json
	@mkdir -p $(PEER)-js && cp tests/peers/esptool_js/package.json $(PEER)-js/
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "no node here: esptool-js is not tested"; exit 0; }; \
		cd $(PEER)-js && npm install --silent --no-audit --no-fund --no-package-lock && touch .installed

$(PEER)-%/.installed:
	@$(PYTHON) -m venv --clear $(PEER)-$*
	@$(PEER)-$*/bin/python -m pip --disable-pip-version-check --quiet --no-input install 'setuptools<70' wheel
	@$(PEER)-$*/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-build-isolation esptool==$*
	@touch $@

# programs that import esptool, each in an environment of its own, with espwire-compat in esptool's place
clients: $(STAMP)
	@$(BIN)/python tools/install_clients.py $(CLIENTS)

# in an environment of its own: labgrid replaces pyserial by pyserial-labgrid
lab: $(LAB)/.installed
	$(LAB)/bin/python -m pytest tests/lab $(PYTEST_ARGS)

$(LAB)/.installed: pyproject.toml
	@test -x $(LAB)/bin/python || $(PYTHON) -m venv $(LAB)
	@$(LAB)/bin/python -m pip --disable-pip-version-check --quiet --no-input install -e '.[lab,pytest]' hypothesis
	@$(LAB)/bin/python -m pip --disable-pip-version-check --quiet --no-input uninstall -y pyserial pyserial-labgrid
	@$(LAB)/bin/python -m pip --disable-pip-version-check --quiet --no-input install pyserial-labgrid
	@touch $@

# what a release consists of: wheels, source archives, espwire.pyz, the web page
dist: $(STAMP)
	@$(BIN)/python tools/make_dist.py

# the documentation site, in an environment of its own; a broken link is an error
site: $(SITE_STAMP)
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python tools/make_site.py

$(SITE_STAMP):
	@$(PYTHON) -m venv --clear $(SITE)
	@$(SITE)/bin/python -m pip --disable-pip-version-check --quiet --no-input install \
		'mkdocs-material==9.8.*' 'mkdocstrings[python]==1.0.*' ruff
	@touch $@

# the web page, with Pyodide from npm
web: $(STAMP)
	@$(BIN)/python tools/make_web.py

# in the Chromium of the system, driven by Playwright
test-web: $(STAMP)
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(PIP) install -e '.[web-tests]'
	ESPWIRE_WEB_TESTS=1 $(BIN)/python -m pytest tests/web $(PYTEST_ARGS)

# each of them in an empty environment: what a user gets, how large that is, and whether it flashes a virtual chip
dist-check: dist
	@$(BIN)/python tools/check_dist.py

bench: $(STAMP) $(PEER_STAMP)
	ESPWIRE_PEER=$${ESPWIRE_PEER:-$(CURDIR)/$(PEER)/bin/esptool} $(BIN)/python bench/run.py

soak: $(STAMP)
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -n $(WORKERS) -m soak $(PYTEST_ARGS)

stub: $(STAMP)
	$(BIN)/python tools/make_stub.py

# rebuilds and compares; with another compiler than the recorded one it says so, and the suite runs on what that made
stub-check: $(STAMP)
	@$(BIN)/python tools/make_stub.py --check

stub-suite: $(STAMP)
	$(BIN)/python tools/make_stub.py --out build/stub/packed
	ESPWIRE_STUBS=$(CURDIR)/build/stub/packed $(BIN)/python -m pytest -n $(WORKERS) tests/unit/stub tests/conformance

stub-host: $(STAMP)
	@$(BIN)/python tools/make_stub.py --host

stub-sizes: $(STAMP)
	@$(BIN)/python tools/make_stub.py --sizes

generate: $(STAMP)
	$(BIN)/python tools/generate.py

docs: generate
	$(BIN)/python tools/transcripts.py
	$(BIN)/python tools/terminal_picture.py

clean:
	rm -rf $(VENV) $(PEER) $(PEER)-2.8 $(PEER)-3.3.3 $(PEER)-4.8.1 $(PEER)-js $(PEER)-monitor $(CLIENTS) $(LAB) $(SITE) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +
