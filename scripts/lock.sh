#!/bin/sh
# Resolves pyproject.toml into lock files with hashes, for every platform and Python we support.
# Needs uv (https://docs.astral.sh/uv). The files name no package index: yours is used.
set -eu
cd "$(dirname "$0")/.."
lock() { # NAME [EXTRA...]: extras are called as the file unless they are named
    name=$1
    [ $# -eq 1 ] || shift
    uv pip compile pyproject.toml $(printf -- '--extra %s ' "$@") --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet \
        --output-file "requirements/$name.lock"
}
lock dev
(
    export UV_CONSTRAINT=requirements/dev.lock # it is added to what dev installed
    lock manifests
)
lock serve
lock tpu
lock cuda
lock train
lock train-tpu train tpu
lock orchestrator discovery c2pa
lock gateway

# Tools with an environment of their own.
lock_tool() {
    uv pip compile "requirements/$1.in" --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet \
        --output-file "requirements/$1.lock"
}
lock_tool build
lock_tool checkov
lock_tool supply
lock_tool fuzz
