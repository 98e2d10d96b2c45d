"""Signatures of webhooks.

Source: Standard Webhooks, "Signature scheme" and "Symmetric": HMAC-SHA256 of id, timestamp and body
with dots between them.
"""

import base64
import hmac
from collections.abc import Sequence
from pathlib import Path

PREFIX = "whsec_"
BYTES = range(24, 65)


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """Reads a file of secrets, one a line.

    Raises:
        ValueError: it cannot be read, or a line is no secret; the message repeats nothing of it.
    """
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ValueError(f"webhook_secret_file: {path} cannot be read: {reason}") from None
    if not lines:
        raise ValueError(f"webhook_secret_file: expected a secret in {path}, got none")
    return tuple(_secret(line, path, number) for number, line in enumerate(lines, 1))


def signed_headers(
    secrets: Sequence[bytes], *, event_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Returns the headers of a webhook: its id, time, and a signature by each secret."""
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    digests = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in digests),
    }


def _secret(line: str, path: Path, number: int) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not line.startswith(PREFIX) or len(secret) not in BYTES:
        raise ValueError(
            f"webhook_secret_file: expected {PREFIX} and {BYTES[0]} to {BYTES[-1]} bytes in base64 "
            f"in line {number} of {path}, got something else"
        )
    return secret
