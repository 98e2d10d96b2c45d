#!/bin/sh
# Writes the Python stubs beside the protos. With --check it changes nothing and fails if they differ.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tools=.venv-stubs
if [ ! -f "$tools/.ready" ] || [ requirements/stubs.lock -nt "$tools/.ready" ]; then
    "$python" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/stubs.lock
    touch "$tools/.ready"
fi
target=protos
if [ "${1:-}" = --check ]; then
    target=$(mktemp -d)
    trap 'rm -rf "$target"' EXIT
fi
PATH="$PWD/$tools/bin:$PATH" "$tools/bin/python" -m grpc_tools.protoc -I protos \
    --python_out="$target" --grpc_python_out="$target" \
    --mypy_out="quiet:$target" --mypy_grpc_out="quiet:$target" \
    $(find protos/muse -name '*.proto' | sort)
if [ "$target" != protos ]; then
    diff -r --exclude='*.proto' --exclude=py.typed --exclude=__pycache__ --exclude=buf.yaml "$target" protos || {
        echo "the committed stubs are not those of the protos: run make protos and commit" >&2
        exit 1
    }
fi
