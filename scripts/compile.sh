#!/bin/sh
# Pins the dependencies of pyproject.toml and requirements/*.in, for every platform, with hashes.
# Versions already pinned stay; `scripts/compile.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."

if ! command -v uv >/dev/null; then
    echo "make compile needs uv: pipx install uv (or pip install uv in any environment)" >&2
    exit 1
fi

compile() {
    target=$1
    shift
    echo "Compiling $target"
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links --output-file "$target" pyproject.toml "$@"
}

compile requirements/base.txt --extra local requirements/base.in "$@"
compile requirements/dev.txt --extra local --extra dev requirements/dev.in "$@"
