# The manual of this repository: every recipe is one thing that people do here. Call them with ./just, from anywhere.

set shell := ["bash", "-euo", "pipefail", "-c"]

quickstart_manifests := "manifests/quickstart"
bench_venv := ".bench/venv"

# list the recipes
default:
    @just --list --unsorted

# install what the operating system must bring (as root, with apt; else say what to install)
setup:
    @scripts/setup

# a real VM and real containers from manifests/quickstart, then the same again: nothing to do
quickstart: setup
    @scripts/quickstart {{ quickstart_manifests }}

# take everything of the quickstart away again, the embedded LXD too
quickstart-clean:
    @scripts/quickstart-clean {{ quickstart_manifests }}

# everything that must hold before a change may land, but for the slow proofs: this is what CI runs
test *args: setup lint types contracts
    python -m tests.support.twice {{ args }}

# the pure core alone: seconds
test-core *args:
    pytest tests/core tests/cases {{ args }}

# against a real LXD of our own
test-lxd *args: setup
    pytest tests/lxd {{ args }}

# against real QEMUs
test-qemu *args: setup
    pytest tests/qemu {{ args }}

# the real command line over every folder in manifests/
test-e2e *args: setup
    pytest tests/e2e {{ args }}

# the slow proofs, which `test` leaves out: every row of the tables, every way to die
proofs *args: setup
    TESTS_AT_RANDOM=1 pytest -m proof {{ args }}

# manifests from Git, on real servers of this host
test-gitops *args: setup
    pytest tests/gitops {{ args }}

# the watch, on real guests
test-watch *args: setup
    pytest tests/watch {{ args }}

# Here chance is new each time; `test` takes the same examples and moments again. FAULT_SEED=… goes a soak's way again.
# new examples for the core, then guests killed at random, so many cycles a victim: hours for thousands
soak cycles="300" *args: setup
    TESTS_AT_RANDOM=1 pytest tests/core
    TESTS_AT_RANDOM=1 FAULT_CYCLES={{ cycles }} pytest tests/faults -rP {{ args }}

# packaging, contracts, documentation: the project itself
test-project *args:
    pytest tests/project {{ args }}

# style
lint:
    ruff check .
    ruff format --check .

# types
types:
    mypy

# which room may import which, each contract named by a sentence
contracts:
    lint-imports

# put the code into the one format
fmt:
    ruff check --fix .
    ruff format .

# the reference of all kinds and fields, from the schemas
docs:
    python docs/make_reference.py

# our speed against limits and peers, as ratios
bench *args: setup
    python -m bench.run {{ args }}

# install the peers that bench compares with
bench-setup:
    @scripts/bench-setup {{ bench_venv }}

# build the wheel through the source distribution, into dist/
wheel:
    rm -rf dist build
    python -m build

# what this machine has and what is missing
doctor *args:
    reconciler doctor {{ args }}

# remove what was built or cached; guests and state stay
clean:
    rm -rf build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .bench *.egg-info
    find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
