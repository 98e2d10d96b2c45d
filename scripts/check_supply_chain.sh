#!/bin/sh
# What the project takes from others: licences of what is installed in .venv, known weaknesses of
# what the lock files name, and a bill of materials (CycloneDX) of each of them.
#
#     sh scripts/check_supply_chain.sh [FOLDER]    # of the bills; out/sbom by default
set -eu
cd "$(dirname "$0")/.."
bills=${1:-out/sbom}
tools=.venv-supply
if [ ! -f "$tools/.ready" ] || [ requirements/supply.lock -nt "$tools/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/supply.lock
    touch "$tools/.ready"
fi
shipped="serve orchestrator gateway train tpu cuda train-tpu"

# These name no licence where the tool looks; their LICENSE files are Apache-2.0 but resvg_py's, MIT.
unnamed="atheris cel-python grain resvg_py"
allowed=$(grep -v '^#' requirements/licences.txt | paste -sd ';' -)
"$tools/bin/pip-licenses" --python .venv/bin/python --allow-only "$allowed" \
    --ignore-packages muse $unnamed --format=csv >/dev/null
echo "licences: all packages have an allowed one"

for name in $shipped dev manifests; do
    "$tools/bin/python" scripts/audit_lock.py "requirements/$name.lock"
done

mkdir -p "$bills"
for name in $shipped; do
    PYTHONWARNINGS=ignore "$tools/bin/cyclonedx-py" requirements "requirements/$name.lock" --pyproject pyproject.toml \
        --output-reproducible --output-format JSON --output-file "$bills/$name.cdx.json"
done
echo "bills of materials: $(ls "$bills" | wc -l) in $bills"
