#!/bin/sh
# Installs what one image needs into a fresh environment: locked packages, then this repository.
# The Containerfile runs it, and so does scripts/check_targets.py, which needs no container engine.
#
#   sh scripts/install_target.sh orchestrator|gateway|stage|training cpu|tpu|cuda FOLDER
set -eu
cd "$(dirname "$0")/.."
target=$1 accelerator=$2 folder=$3
case "$target-$accelerator" in
orchestrator-cpu) lock=orchestrator ;; # no JAX: it computes nothing
gateway-cpu) lock=gateway ;;
stage-cpu) lock=serve ;;
stage-tpu | stage-cuda) lock=$accelerator ;;
training-cpu) lock=train ;;
training-tpu) lock=train-tpu ;;
*)
    echo "expected orchestrator cpu, gateway cpu, stage cpu|tpu|cuda or training cpu|tpu, got $target $accelerator" >&2
    exit 2
    ;;
esac
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install() { # ENVIRONMENT ARGUMENT...
    environment=$1
    shift
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

"$python" -m venv "$folder"
install "$folder" --require-hashes -r "requirements/$lock.lock"

# What builds the wheel stays out of the image.
"$python" -m venv "$work/build"
install "$work/build" --require-hashes -r requirements/build.lock
"$work/build/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --no-build-isolation --wheel-dir "$work" .
install "$folder" --no-deps --no-index "$work"/muse-*.whl
"$folder/bin/python" -m pip uninstall --quiet --yes pip
