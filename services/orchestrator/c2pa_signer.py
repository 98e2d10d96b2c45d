"""Content Credentials: C2PA manifests, which say under a signature how a picture was made.

A manifest covers every byte of its file, so that any later change of the file is noticed.

Source: C2PA Technical Specification, chapters "Standard Assertions" (actions) and "Trust Model"
(certificates); c2pa-python, which makes and signs the manifests.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import c2pa
import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from PIL import Image

from services.pictures.xmp import source_type
from services.runtime.server.certificates import CertificateFiles
from services.runtime.version import package_version
from services.runtime.wire.errors import RequestError

PROVENANCE = "muse.provenance"  # the label of the assertion that has the fields of a picture
_CURVES = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
# Purposes of a certificate (EKU), as c2pa-rs lists them: signing C2PA claims, documents, e-mail.
PURPOSES = ("1.3.6.1.4.1.62558.2.1", "1.3.6.1.5.5.7.3.36", "1.3.6.1.5.5.7.3.4")
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # the picture itself is there
    "trust": {"trust_config": "\n".join(PURPOSES)},
}


class C2paSigner:
    """Signs manifests by one certificate; may be used by several threads at once."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Reads certificate and key, and signs a small picture to see that C2PA accepts them.

        Args:
            cert: File of the certificate and its intermediate authorities, in PEM.
            key: File of its private key, in PEM without a password.

        Raises:
            ValueError: a file cannot be read, the key is another one's, or C2PA refuses the
                certificate.
        """
        files = CertificateFiles(setting="c2pa", cert=cert, key=key, ca=None)
        content = files.content()
        files.check(content)
        assert content.cert is not None
        assert content.key is not None
        private = load_pem_private_key(content.key, password=None)
        plain = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._info = c2pa.C2paSignerInfo(_algorithm(private, key), content.cert, plain, None)
        probe = io.BytesIO()
        Image.new("RGB", (1, 1)).save(probe, "PNG")
        try:
            self._signed(probe.getvalue(), "PNG", {})
        except c2pa.C2paError as error:
            raise ValueError(
                "c2pa_cert: expected an end-entity certificate for C2PA claims, documents or "
                f"e-mail, got {cert}: {_line(error)}"
            ) from error

    def signed(self, content: bytes, file_format: str, fields: Mapping[str, str]) -> bytes:
        """Returns a picture's file with a signed manifest in it.

        Args:
            content: The complete file.
            file_format: "PNG", "JPEG" or "WEBP".
            fields: Fields of `picture_fields`; those with a value become an assertion.

        Raises:
            RequestError: INTERNAL: it cannot be signed, such as after the certificate's end.
        """
        try:
            return self._signed(content, file_format, fields)
        except c2pa.C2paError as error:
            message = f"the picture cannot be signed (c2pa_cert): {_line(error)}"
            raise RequestError(grpc.StatusCode.INTERNAL, message) from error

    def _signed(self, content: bytes, file_format: str, fields: Mapping[str, str]) -> bytes:
        manifest = {
            "claim_generator_info": [{"name": "Muse", "version": package_version()}],
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": _actions(fields)}},
                {
                    "label": PROVENANCE,
                    "data": {name: value for name, value in fields.items() if value},
                },
            ],
        }
        signed = io.BytesIO()
        with (
            c2pa.Signer.from_info(self._info) as signer,
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Builder(manifest, context) as builder,
        ):
            builder.sign(signer, f"image/{file_format.lower()}", io.BytesIO(content), signed)
        return signed.getvalue()


def _actions(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns what was done: an edit is a composite, whose edit is named."""
    made: dict[str, Any] = {
        "action": "c2pa.created",
        "digitalSourceType": source_type(fields),
    }
    edit = fields.get("edit")
    return [made, {"action": "c2pa.edited", "description": edit}] if edit else [made]


def _algorithm(key: object, file: Path) -> bytes:
    """Returns C2PA's name of the algorithm by which a key signs.

    Raises:
        ValueError: C2PA has none for it.
    """
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, RSAPrivateKey) and key.key_size >= 2048:
        return b"ps256"
    raise ValueError(
        "c2pa_key: expected a key of P-256, P-384, P-521, Ed25519 or RSA of 2048 bits or more, as "
        f"C2PA requires, got {file}, which is of another kind"
    )


def _line(error: c2pa.C2paError) -> str:
    return " ".join(str(error).split())
