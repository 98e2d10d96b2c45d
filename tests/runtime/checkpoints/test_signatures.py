"""With a key, a server loads the files that the key signed: these bytes, and no other file."""

import asyncio
import hashlib
import importlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from minisign import KeyPair

from services.runtime.checkpoints.errors import CheckpointNotFound, CheckpointUntrusted
from services.runtime.checkpoints.signatures import check_signature
from services.stages import STAGES

SCRIPT = Path(__file__).parents[3] / "scripts" / "sign_folder.sh"
KEYS = KeyPair.generate()


def sign(folder: Path, keys: KeyPair = KEYS) -> None:
    """Writes the list of a folder's files and its signature."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(folder)}\n"
        for file in files
        if not file.name.startswith("SHA256SUMS")
    ]
    sums = "".join(lines).encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    signature = bytes(keys.secret_key.sign(sums, trusted_comment="a test"))
    (folder / "SHA256SUMS.minisig").write_bytes(signature + b"\n")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The public key's file."""
    file = tmp_path / "muse.pub"
    file.write_bytes(bytes(KEYS.public_key) + b"\n")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed folder with a file in a folder of its own."""
    made = tmp_path / "checkpoint"
    (made / "low").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "low" / "model.safetensors").write_bytes(b"weights")
    sign(made)
    return made


def test_a_signed_folder_is_loaded_and_hidden_files_do_not_count(folder: Path, key: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a").write_text("of another program")
    check_signature(folder, key)


def test_without_a_key_nothing_has_to_be_signed(tmp_path: Path) -> None:
    check_signature(tmp_path / "missing", None)


def change(folder: Path) -> None:
    (folder / "low" / "model.safetensors").write_bytes(b"weightz")


def add(folder: Path) -> None:
    (folder / "sampling.json").write_text("{}")


def remove(folder: Path) -> None:
    (folder / "config.json").unlink()


def list_another_digest(folder: Path) -> None:
    change(folder)
    sums = folder / "SHA256SUMS"
    digests = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"weightz").hexdigest()
    sums.write_text(sums.read_text().replace(*digests))


def sign_with_another_key(folder: Path) -> None:
    sign(folder, KeyPair.generate())


def cut_the_signature(folder: Path) -> None:
    file = folder / "SHA256SUMS.minisig"
    file.write_bytes(file.read_bytes()[:90])


def remove_the_signature(folder: Path) -> None:
    (folder / "SHA256SUMS.minisig").unlink()


@pytest.mark.parametrize(
    ("tamper", "sentence"),
    [
        (change, r"model\.safetensors is not the file that was signed: expected sha256:"),
        (add, r"sampling\.json is not signed: expected exactly the files that SHA256SUMS lists"),
        (remove, r"config\.json is missing: expected exactly the files"),
        (list_another_digest, r"SHA256SUMS is not what the key in .* signed"),
        (sign_with_another_key, r"SHA256SUMS is not what the key in .* signed"),
        (cut_the_signature, r"SHA256SUMS\.minisig: expected minisign's signature"),
        (remove_the_signature, r"is not signed: expected SHA256SUMS and SHA256SUMS\.minisig"),
    ],
)
def test_what_was_not_signed_is_refused(
    folder: Path, key: Path, tamper: Callable[[Path], None], sentence: str
) -> None:
    tamper(folder)
    with pytest.raises(CheckpointUntrusted, match=sentence):
        check_signature(folder, key)


def test_what_is_no_key_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for content in (b"", b"a\nb\n", b"\xff\xfe"):
        (tmp_path / "wrong.pub").write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint_key: expected the file of minisign's"):
            check_signature(folder, tmp_path / "wrong.pub")
    with pytest.raises(ValueError, match=r"checkpoint_key: .*missing\.pub"):
        check_signature(folder, tmp_path / "missing.pub")


def load(stage: str, checkpoints: Path, key: Path, **settings: object) -> None:
    """Does what a stage's server does before it opens its port."""
    server = importlib.import_module(f"services.{stage}.__main__")
    wanted = server.Settings(checkpoints=checkpoints, checkpoint_key=key, **settings)
    asyncio.run(server.build(wanted))


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_asks_for_the_signature_before_it_reads_anything(
    stage: str, key: Path, tmp_path: Path
) -> None:
    (tmp_path / stage).mkdir()
    with pytest.raises(CheckpointUntrusted, match=f"{stage} is not signed"):
        load(stage, tmp_path, key)
    sign(tmp_path / stage)
    with pytest.raises(CheckpointNotFound):
        load(stage, tmp_path, key)


def test_an_adapter_from_elsewhere_has_to_be_signed_too(key: Path, tmp_path: Path) -> None:
    (tmp_path / "base" / "adapters" / "owl").mkdir(parents=True)
    (tmp_path / "fox").mkdir()
    sign(tmp_path / "base")
    with pytest.raises(CheckpointUntrusted, match="fox is not signed"):
        load("base", tmp_path, key, adapter=(f"fox={tmp_path / 'fox'}",))


@pytest.mark.skipif(shutil.which("minisign") is None, reason="needs Debian's minisign")
def test_the_script_signs_what_a_server_asks_for(folder: Path, tmp_path: Path) -> None:
    public, secret = tmp_path / "own.pub", tmp_path / "own.key"
    (folder / "a name with spaces").write_text("")
    (folder / ".hidden").write_text("")
    subprocess.run(["minisign", "-G", "-W", "-p", public, "-s", secret], check=True)
    subprocess.run(["sh", SCRIPT, secret, folder], check=True)
    check_signature(folder, public)
    change(folder)
    with pytest.raises(CheckpointUntrusted, match="is not the file that was signed"):
        check_signature(folder, public)
