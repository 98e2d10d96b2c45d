#!/bin/sh
# Signs folders, each with all that lies in it, by minisign: checkpoints, adapters, a release.
#
#     minisign -G -p muse.pub -s muse.key
#     sh scripts/sign_folder.sh muse.key checkpoints/mine/*/
#
# A server with --checkpoint-key muse.pub then loads these files and no others. By hand, in a folder:
# minisign -V -p muse.pub -m SHA256SUMS && sha256sum -c SHA256SUMS
set -eu
key=$(realpath "$1")
shift
for folder in "$@"; do
    (
        cd "$folder"
        find -L . -type f ! -path '*/.*' ! -path ./SHA256SUMS ! -path ./SHA256SUMS.minisig -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum >SHA256SUMS
        minisign -S -s "$key" -m SHA256SUMS -t "$(basename "$PWD")"
    )
done
