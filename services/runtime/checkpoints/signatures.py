"""Signatures of checkpoints: who made the files of a folder, and that none was added or changed.

    SHA256SUMS           digest and path of every file in the folder, as `sha256sum` prints them
    SHA256SUMS.minisig   the signature of that list, as `minisign` makes it

Both are of ordinary tools, so a checkpoint can be signed and verified without this project;
scripts/sign_folder.sh calls them. A digest in config.json notices damage; a signature notices
whoever could write to the folder and would have written that digest too.

Source: https://jedisct1.github.io/minisign/, section "Signature format".
"""

import os
from collections.abc import Iterator
from pathlib import Path

from minisign import ParseError, PublicKey, Signature, VerifyError

from services.runtime.checkpoints.errors import CheckpointUntrusted
from services.runtime.checkpoints.integrity import file_digest

SUMS_FILE, SIGNATURE_FILE = "SHA256SUMS", "SHA256SUMS.minisig"
SIGN = "sign it with scripts/sign_folder.sh"


def check_signature(folder: Path, key: Path | None) -> None:
    """Checks that a key signed the files of a folder: these files, and no others.

    Hidden files, of which no checkpoint has any, do not count.

    Args:
        folder: Of a checkpoint or an adapter, with all that lies in it.
        key: File of minisign's public key; None checks nothing.

    Raises:
        CheckpointUntrusted: the signature is missing or of another key, or a file is missing,
            changed, or not signed.
        ValueError: the key cannot be read.
    """
    if key is None:
        return
    sums = _signed_sums(folder, key)
    files = {str(file.relative_to(folder)): file for file in _files(folder)}
    for kind, names in (
        ("is not signed", files.keys() - sums.keys()),
        ("is missing", sums.keys() - files.keys()),
    ):
        if names:
            raise CheckpointUntrusted(
                f"{folder}: {min(names)} {kind}: expected exactly the files that {SUMS_FILE} "
                f"lists; fetch the checkpoint again, or {SIGN}"
            )
    for name, file in sorted(files.items()):
        if file_digest(file) != sums[name]:
            raise CheckpointUntrusted(
                f"{file} is not the file that was signed: expected {sums[name]}, got another "
                "digest; fetch the checkpoint again"
            )


def _signed_sums(folder: Path, key: Path) -> dict[str, str]:
    """Returns the digests of a list of files whose signature is right, by path."""
    public_key = _public_key(key)
    try:
        content = (folder / SUMS_FILE).read_bytes()
        signature = Signature.from_file(folder / SIGNATURE_FILE)
    except OSError as error:
        raise CheckpointUntrusted(
            f"{folder} is not signed: expected {SUMS_FILE} and {SIGNATURE_FILE} there, as "
            f"checkpoint_key is given; {SIGN}"
        ) from error
    except (ParseError, UnicodeDecodeError) as error:
        raise CheckpointUntrusted(
            f"{folder / SIGNATURE_FILE}: expected minisign's signature: {error}"
        ) from error
    try:
        public_key.verify(content, signature)
    except VerifyError as error:
        raise CheckpointUntrusted(
            f"{folder / SUMS_FILE} is not what the key in {key} signed: {error}"
        ) from error
    return dict(map(_name_and_digest, os.fsdecode(content).splitlines()))


def _public_key(file: Path) -> PublicKey:
    try:
        return PublicKey.from_file(file)
    except (OSError, ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"checkpoint_key: expected the file of minisign's public key, got {file}: {error}"
        ) from error


def _name_and_digest(line: str) -> tuple[str, str]:
    """Reads "DIGEST  ./path"; a name that `sha256sum` had to escape begins with a backslash."""
    digest, _, name = line.partition(" ")
    return name[1:].removeprefix("./"), f"sha256:{digest}"


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent, name)
            signed_apart = file in (folder / SUMS_FILE, folder / SIGNATURE_FILE)
            if not name.startswith(".") and not signed_apart:
                yield file
