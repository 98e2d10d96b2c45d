#!/bin/sh
# Holds the rendered manifests and the Containerfile to checkov's rules, in an environment of its own.
set -eu
cd "$(dirname "$0")/.."
tools=.venv-checkov
if [ ! -f "$tools/.ready" ] || [ requirements/checkov.lock -nt "$tools/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/checkov.lock
    touch "$tools/.ready"
fi
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
kubectl=$(command -v kubectl || echo requirements/kubectl/bin/kubectl)
for folder in k8s/overlays/* k8s/training k8s/training/precompute; do
    "$kubectl" kustomize "$folder" >"$rendered/$(basename "$folder").yaml"
done
cp Containerfile "$rendered/Dockerfile"
"$tools/bin/checkov" --config-file k8s/checkov.yaml --directory "$rendered"
echo "checkov: nothing found in $(ls "$rendered" | wc -l) files"
