#!/bin/sh
# Makes the files of a release in dist/, with what lets others check them:
#
#     MINISIGN_KEY=muse.key BUILDER_ID=https://builds.example.com sh scripts/release.sh
#
#     muse_client-VERSION-py3-none-any.whl                the client
#     sbom/NAME.cdx.json                                  bills of materials of the images' packages
#     images.txt                                          digest of each image, where podman is
#     provenance.json                                     where they come from (SLSA)
#     SHA256SUMS, SHA256SUMS.minisig                      their digests, signed
#
# Verify: minisign -V -p muse.pub -m SHA256SUMS && sha256sum -c SHA256SUMS
set -eu
cd "$(dirname "$0")/.."
key=$(realpath "${MINISIGN_KEY:?expected the file of a secret key of minisign}")
if [ -n "$(git status --porcelain)" ]; then
    echo "expected a clean checkout, got changes: a release is what a commit says" >&2
    exit 1
fi
rm -rf dist && mkdir -p dist
make setup
.venv/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./client
sh scripts/check_supply_chain.sh dist/sbom
if command -v podman; then
    version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("muse"))')
    for target in gateway orchestrator text-encoder tokenizer base superres training; do
        podman build --quiet --target $target --tag muse-$target:$version \
            ${PYTHON_IMAGE:+--build-arg PYTHON_IMAGE="$PYTHON_IMAGE"} .
        echo "muse-$target:$version $(podman inspect --format '{{.Digest}}' muse-$target:$version)"
    done >dist/images.txt
else
    echo "images: NOT BUILT, podman is not here"
fi
.venv/bin/python scripts/provenance.py dist >provenance.json
mv provenance.json dist/
sh scripts/sign_folder.sh "$key" dist
