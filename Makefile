# `make demo` and `make test` are all a fresh machine needs; both make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
# Of `make fuzz`.
MINUTES ?= 60
SEED ?= 1
# Of `make bench-compare`.
REV ?= HEAD

.PHONY: all demo test test-oldest lint type unit fix golden bench fuzz picture audit wheels docs dist pyz man clean

all: test

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "heapdump needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m fixtures.sample fixtures/sample.dmp fixtures/sample-earlier.dmp
	$(BIN)/heapdump triage fixtures/sample.dmp || test $$? = 4  # 4: the sample's heap is damaged, on purpose

test: lint type unit

# The lowest versions of the dependencies that pyproject.toml allows, with the oldest Python that it allows.
test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(OLDEST)/bin/python -m tests.tools.lower_bounds > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --editable ".[names]" --group dev --constraint $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pytest -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .

type: $(STAMP)
	$(BIN)/mypy

# The loops are compiled once, before several processes want them at the same time. Tests start heapdump 300 times: its
# byte code is kept, whatever the environment says.
unit: export PYTHONDONTWRITEBYTECODE =
unit: $(STAMP)
	$(BIN)/heapdump cache --compile
	$(BIN)/pytest -n auto --dist worksteal

fix: $(STAMP)
	$(BIN)/ruff check --fix .

golden: $(STAMP) picture
	HEAPDUMP_WRITE_GOLDEN=1 $(BIN)/pytest -m golden

# The picture of the README, from the sample.
picture: $(STAMP)
	$(BIN)/python -m fixtures.picture docs/triage.svg

# Compiled first: a first run's time for compiling is no failure.
fuzz: $(STAMP)
	$(BIN)/heapdump cache --compile
	HEAPDUMP_FUZZ=50 $(BIN)/python -m pytest -q -n auto --dist worksteal tests/real/test_fuzz_check.py tests/real/test_fuzz_metadata.py tests/real/test_fuzz_segment_metadata.py tests/test_asked_twice.py
	HEAPDUMP_FUZZ=50 $(BIN)/python -m pytest -q -n auto --dist worksteal -m property
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED)

bench: $(STAMP)
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.summary
	$(BIN)/python -m tests.bench.walk
	$(BIN)/python -m tests.bench.segment_walk
	$(BIN)/python -m tests.bench.check
	$(BIN)/python -m tests.bench.stacks
	$(BIN)/python -m tests.bench.graph
	$(BIN)/python -m tests.bench.diff

# The rows of `make bench` with the code of another revision too, and ratios: make bench-compare REV=main~20
bench-compare: $(STAMP)
	$(BIN)/python -m tests.bench --compare $(REV)

# Known vulnerabilities of what is installed; asks a server.
audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --group audit
	$(BIN)/pip-audit --skip-editable

# Whether every dependency has a wheel for Windows; asks the registry of pip.
wheels: $(STAMP)
	$(BIN)/python -m tests.tools.windows_wheels

# The site goes to site/. A broken link fails the build.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# Wheel, source distribution and bill of materials go to dist/; the wheel is installed alone and tried. The bill is that
# of this environment.
dist: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m pip install --quiet --group dist
	$(BIN)/python -m build
	$(PYTHON) -m venv --clear build/installed
	build/installed/bin/python -m pip install --quiet dist/*.whl
	build/installed/bin/python -m tests.tools.smoke build/installed/bin/heapdump
	test -s build/installed/share/man/man1/heapdump-triage.1
	build/installed/bin/python -m tests.tools.sbom > dist/heapdump.cdx.json

# One file with heapdump and its dependencies, for this system and this minor version of Python; for another one
# make pyz FOR="--platform win_amd64 --python-version 3.12 --only-binary :all:" NAME=heapdump-py312-win_amd64.pyz
FOR ?=
NAME ?= heapdump.pyz
pyz: $(STAMP)
	$(BIN)/python -m pip install --quiet --group dist --group pyz
	$(BIN)/python -m build --wheel --outdir build/pyz
	mkdir -p dist
	$(BIN)/shiv --compressed --reproducible --entry-point heapdump.__main__:main --python "/usr/bin/env python3" \
	  --output-file dist/$(NAME) build/pyz/*.whl $(FOR)
	test -n "$(FOR)" || $(BIN)/python -m tests.tools.smoke $(BIN)/python dist/$(NAME)

# The pages of the manual, as the wheel has them.
man: $(STAMP)
	$(BIN)/python -c 'from pathlib import Path; from heapdump.cli.manual import write_pages; write_pages(Path("build/man"))'

clean:
	rm -rf $(VENV) $(OLDEST) build dist site *.egg-info fixtures/*.dmp
