#!/bin/sh
# Creates .venv-conformance, and node_modules in tests/conformance/node: the suites of clients that
# `make conformance` runs. Run by `make install-conformance`; may be run again at any time.
# PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
venv=.venv-conformance

if ! [ -x "$venv/bin/pip" ]; then
    echo "Creating $venv"
    # .venv is there before it, and has found a Python that is new enough.
    "${PYTHON:-.venv/bin/python}" -m venv --clear "$venv"
fi
echo "Installing the suites in Python into $venv (280 MB)"
"$venv/bin/pip" install --quiet --require-hashes --requirement requirements/conformance.txt

# Versions and hashes are those of package-lock.json; nothing that a package would run is run.
if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    echo "Node and npm (20 or newer) are missing, so the suites in JavaScript will be skipped. Debian has them:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y nodejs npm; then run make install-conformance again" >&2
    [ "${CI:-}" != true ]
    exit
fi
echo "Installing the suites in JavaScript into tests/conformance/node/node_modules (140 MB)"
npm --prefix tests/conformance/node ci --ignore-scripts --no-audit --no-fund --loglevel=error
touch "$venv/.installed"
echo "Installed: $venv"
