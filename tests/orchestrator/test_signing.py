"""Content Credentials in pictures, read and judged by C2PA's own reader."""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import c2pa
import grpc
import numpy as np
import pytest
from cryptography import x509
from muse.orchestrator.v1.orchestrator_pb2 import Inpaint, PictureFormat
from PIL import Image

from services.orchestrator import __main__ as orchestrator
from services.orchestrator.signing import load_signer
from services.pictures.xmp import EDITED_TYPE, SOURCE_TYPE, XMP_CHUNK, fields_of
from services.runtime.server.process import ServerError
from services.runtime.version import package_version
from services.runtime.wire.errors import RequestError
from tests.document_signers import CLAIMS, DOCUMENTS, EMAIL, SERVER, SigningAuthority
from tests.orchestrator.test_safety import EXPLICIT, guarded
from tests.picture_files import file_of, noise
from tests.small_stages import open_house


@pytest.fixture(scope="module")
def authority() -> SigningAuthority:
    return SigningAuthority()


def manifest_of(
    content: bytes, authority: SigningAuthority, file_format: str = "PNG"
) -> tuple[str, dict[str, Any]]:
    """Returns C2PA's judgement of a picture and what its manifest says, by label."""
    trust = {
        "trust_anchors": authority.pem.decode(),
        "trust_config": "\n".join(each.dotted_string for each in (CLAIMS, DOCUMENTS, EMAIL)),
    }
    with (
        c2pa.Context.from_dict({"trust": trust}) as context,
        c2pa.Reader(f"image/{file_format.lower()}", io.BytesIO(content), context=context) as reader,
    ):
        manifest = reader.get_active_manifest()
        said = {each["label"]: each["data"] for each in manifest["assertions"]}
        return reader.get_validation_state(), said | {"by": manifest["claim_generator_info"][0]}


def settings(folder: Path, authority: SigningAuthority, **changes: Any) -> dict[str, Path]:
    """Returns the orchestrator's settings that sign pictures."""
    cert, key = authority.issue(**changes).write(folder, "c2pa")
    return {"c2pa_cert": cert, "c2pa_key": key}


async def test_a_picture_says_under_a_signature_how_it_was_made(
    tmp_path: Path, authority: SigningAuthority
) -> None:
    async with open_house(**settings(tmp_path, authority)) as house:
        events = await house.events(count=2, negative_prompt="rain")
    pngs = [event.image.png for event in events if event.HasField("image")]
    assert len(pngs) == 2
    for png in pngs:
        state, said = manifest_of(png, authority)
        assert state == "Trusted"
        assert said["by"]["name"] == "Muse"
        assert said["by"]["version"] == package_version()
        (made,) = said["c2pa.actions.v2"]["actions"]
        assert (made["action"], made["digitalSourceType"]) == ("c2pa.created", SOURCE_TYPE)
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert SOURCE_TYPE in image.info[XMP_CHUNK]
            written = {name: image.info[name] for name in said["muse.provenance"]}
        assert said["muse.provenance"] == written
        assert said["muse.provenance"]["prompt"] == "a fox"
        assert json.loads(written["checkpoints"])["base"] == "sha256:base"


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
async def test_a_picture_of_another_format_is_signed_too(
    tmp_path: Path, authority: SigningAuthority, file_format: str
) -> None:
    asked = PictureFormat.Value(f"PICTURE_FORMAT_{file_format}")
    async with open_house(**settings(tmp_path, authority)) as house:
        events = await house.events(picture_format=asked)
    (content,) = (event.image.file for event in events if event.HasField("image"))
    state, said = manifest_of(content, authority, file_format)
    assert state == "Trusted"
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == file_format
        assert said["muse.provenance"] == fields_of(image)

    changed = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    assert manifest_of(changed, authority, file_format)[0] == "Invalid"


async def test_an_edit_is_a_composite_and_a_signed_picture_can_be_edited(
    tmp_path: Path, authority: SigningAuthority
) -> None:
    given = settings(tmp_path, authority)
    signer = load_signer(*given.values())
    assert signer is not None
    signed = signer.signed(file_of(noise(32, 32)), "PNG", {"prompt": "a fox"})
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 255
    async with open_house(**given) as house:
        events = await house.events(inpaint=Inpaint(image=signed, mask=file_of(mask)))
    png = next(each.image.png for each in events if each.HasField("image"))
    state, said = manifest_of(png, authority)
    assert state == "Trusted"
    made, edited = said["c2pa.actions.v2"]["actions"]
    assert (made["action"], made["digitalSourceType"]) == ("c2pa.created", EDITED_TYPE)
    assert (edited["action"], edited["description"]) == ("c2pa.edited", "inpaint")
    assert said["muse.provenance"]["source"] == "AI-edited"


async def test_the_score_of_the_classifier_is_under_the_signature(
    tmp_path: Path, authority: SigningAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(monkeypatch, "blur", **settings(tmp_path, authority)) as house:
        events = await house.events(seed=EXPLICIT)
    (png,) = (each.image.png for each in events if each.HasField("image"))
    state, said = manifest_of(png, authority)
    assert state == "Trusted"
    assert said["muse.provenance"]["safety_score"] == "0.9000"
    assert said["muse.provenance"]["safety_action"] == "blurred"


@pytest.mark.parametrize("part", [b"IDAT", b"a fox"])
def test_a_changed_byte_of_the_picture_or_of_its_text_is_noticed(
    tmp_path: Path, authority: SigningAuthority, part: bytes
) -> None:
    signer = load_signer(*authority.issue().write(tmp_path))
    assert signer is not None
    png = signer.signed(file_of(noise(32, 32)), "PNG", {"prompt": "a fox", "seed": "7"})
    assert manifest_of(png, authority)[0] == "Trusted"

    place = png.index(part) + len(part) + 40 if part == b"IDAT" else png.index(part)
    changed = png[:place] + bytes([png[place] ^ 1]) + png[place + 1 :]

    assert manifest_of(changed, authority)[0] == "Invalid"


def test_a_signature_of_another_authority_is_not_trusted(
    tmp_path: Path, authority: SigningAuthority
) -> None:
    signer = load_signer(*SigningAuthority().issue().write(tmp_path))
    assert signer is not None
    png = signer.signed(file_of(noise(8, 8)), "PNG", {"prompt": "a fox"})
    assert manifest_of(png, authority)[0] == "Valid"


@pytest.mark.parametrize("key", ["P-256", "P-384", "Ed25519", "RSA"])
@pytest.mark.parametrize("purpose", [EMAIL, DOCUMENTS, CLAIMS])
def test_every_kind_of_key_and_purpose_that_c2pa_allows_signs(
    tmp_path: Path, authority: SigningAuthority, key: str, purpose: x509.ObjectIdentifier
) -> None:
    signer = load_signer(*authority.issue(purpose, key).write(tmp_path))
    assert signer is not None
    png = signer.signed(file_of(noise(8, 8)), "PNG", {"prompt": "a \x00\r\n\ufffe\U0001f98a"})
    assert manifest_of(png, authority)[0] == "Trusted"


def test_what_cannot_be_signed_is_an_error_of_one_line(
    tmp_path: Path, authority: SigningAuthority
) -> None:
    signer = load_signer(*authority.issue().write(tmp_path))
    assert signer is not None
    with pytest.raises(
        RequestError, match=r"^the picture cannot be signed \(c2pa_cert\): ."
    ) as caught:
        signer.signed(b"no picture", "PNG", {"prompt": "a fox"})
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert "\n" not in caught.value.message


def test_several_threads_sign_at_once(tmp_path: Path, authority: SigningAuthority) -> None:
    signer = load_signer(*authority.issue().write(tmp_path))
    assert signer is not None
    png = file_of(noise(16, 16))
    with ThreadPoolExecutor(4) as threads:
        seeds = [{"seed": str(seed)} for seed in range(16)]
        signed = list(threads.map(lambda fields: signer.signed(png, "PNG", fields), seeds))
    for seed, each in enumerate(signed):
        state, said = manifest_of(each, authority)
        assert (state, said["muse.provenance"]["seed"]) == ("Trusted", str(seed))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"purpose": SERVER}, "^c2pa_cert: expected an end-entity certificate .* got .*c2pa.crt: "),
        ({"key": "secp256k1"}, "^c2pa_key: expected a key of P-256, .* got .*c2pa.key, which"),
    ],
)
async def test_a_certificate_that_c2pa_refuses_ends_the_start(
    tmp_path: Path, authority: SigningAuthority, changes: dict[str, Any], problem: str
) -> None:
    given = settings(tmp_path, authority, **changes)
    with pytest.raises(ServerError, match=problem) as caught:
        await orchestrator.build(orchestrator.Settings(port=0, **given))
    assert "\n" not in str(caught.value)


async def test_the_key_of_another_certificate_ends_the_start(
    tmp_path: Path, authority: SigningAuthority
) -> None:
    cert, _ = authority.issue().write(tmp_path, "one")
    _, key = authority.issue().write(tmp_path, "two")
    with pytest.raises(ServerError, match=r"^c2pa_key: expected the key of the certificate .*one"):
        await orchestrator.build(orchestrator.Settings(port=0, c2pa_cert=cert, c2pa_key=key))


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^c2pa_key: expected a file beside c2pa_cert, got none"):
        orchestrator.Settings(c2pa_cert=tmp_path / "cert.pem")


async def test_without_its_package_signing_names_what_to_install(
    tmp_path: Path, authority: SigningAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.delitem(sys.modules, "services.orchestrator.c2pa_signer", raising=False)
    given = settings(tmp_path, authority)
    with pytest.raises(ServerError, match=r"^c2pa_cert needs c2pa: pip install 'muse\[c2pa\]'$"):
        await orchestrator.build(orchestrator.Settings(port=0, **given))


async def test_without_a_certificate_nothing_is_signed() -> None:
    async with open_house() as house:
        events = await house.events()
    png = next(each.image.png for each in events if each.HasField("image"))
    assert b"caBX" not in png  # the chunk of a PNG that has a manifest
