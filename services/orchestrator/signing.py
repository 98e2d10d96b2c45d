"""Signers, which put Content Credentials into picture files: their interface, and loading one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class PictureSigner(Protocol):
    """Signs how pictures were made; may be used by several threads at once."""

    def signed(self, content: bytes, file_format: str, fields: Mapping[str, str]) -> bytes:
        """Returns a picture's file with a signed manifest in it; runs in a thread.

        Args:
            content: The complete file.
            file_format: "PNG", "JPEG" or "WEBP".
            fields: Fields of `picture_fields`.

        Raises:
            RequestError: INTERNAL: it cannot be signed.
        """


def load_signer(cert: Path | None, key: Path | None) -> PictureSigner | None:
    """Loads the signer of a certificate and its key; returns None without them.

    Raises:
        ValueError: C2PA's package is missing, or it cannot sign with them.
    """
    if cert is None or key is None:
        return None
    try:
        from services.orchestrator.c2pa_signer import C2paSigner
    except ModuleNotFoundError as error:
        raise ValueError(f"c2pa_cert needs {error.name}: pip install 'muse[c2pa]'") from error
    return C2paSigner(cert, key)
